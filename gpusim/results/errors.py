"""The errors of reading and drawing runs."""

from __future__ import annotations

from typing import ClassVar

from gpusim.errors import CodedError, ResultsError


class RunsError(CodedError, ResultsError):
    """Runs cannot be read or drawn."""

    texts: ClassVar[dict[str, str]] = {
        "summary_not_found": "{path}: not found, so this folder holds no finished run",
        "summary_not_readable": "{path}: cannot be read: {reason}",
        "not_an_object": "{path}: not a summary of gpusim, because it is no JSON object",
        "foreign_summary": "{path}: not a summary of gpusim: status {status}, verdict {verdict}",
        "damaged": "{path}: damaged: {fault}",
        "run_failed": "{error}",
        "timeline_not_found": "there is no {name}",
        "timeline_not_readable": "the timeline cannot be read: {reason}",
        "nothing_to_draw": "no run to draw: {skipped}",
        "no_total_time": "no run has a total time",
        "none_converged": "no run converged, so a grid of total times would be empty",
        "no_two_runs": "there are no two runs to compare",
        "no_choice": "no two converged runs of one VM and workload differ in their settings",
        "folder_not_found": "{folder} does not exist. Name a folder that contains runs of gpusim",
        "not_a_folder": "{folder} is not a folder. Name a folder that contains runs of gpusim",
        "out_not_writable": "{folder}: cannot be written to. Name another folder with --out FOLDER",
        "out_taken": "{path}: is a folder, but a file of the result has this name. Rename the folder, "
        "or name another place with --out FOLDER",
        "out_missing": "several folders need a place for the result. Add --out FOLDER",
        "no_finished_run": "no finished run under {folders}. Name a folder with runs, or make some "
        "with gpusim -m ...",
        "no_finished_run_skipped": "no finished run under {folders} ({skipped}). Name a folder with "
        "runs, or make some with gpusim -m ...",
        "diff_with_parquet": "--parquet: --diff does not write runs.parquet. Use only one of the two "
        "options",
        "diff_of_two": "--diff needs two folders, not {count}. Type gpusim-collect --diff A B",
        "run_and_sweep": "{run} is a run, but {other} is not. Name two runs, or two sweeps",
        "no_common_run": "no run of {a} has the name or the swept values of a run of {b}. Name two "
        "runs, or two sweeps over the same values",
        "too_many_scenarios": "{count} VMs and workloads are too many for one picture",
    }
