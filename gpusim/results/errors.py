"""The errors of reading and drawing runs."""

from __future__ import annotations

from typing import ClassVar

from gpusim.errors import CodedError, ResultsError


class RunsError(CodedError, ResultsError):
    """Runs cannot be read or drawn."""

    texts: ClassVar[dict[str, str]] = {
        "summary_not_found": "{path}: not found, so this folder holds no finished run",
        "summary_not_readable": "{path}: cannot be read: {reason}",
        "summary_without_status": "{path}: not a summary of gpusim, because it has no status",
        "run_failed": "{error}",
        "timeline_not_found": "there is no {name}",
        "nothing_to_draw": "no run to draw: {skipped}",
        "no_total_time": "no run has a total time",
        "none_converged": "no run converged, so a grid of total times would be empty",
        "no_two_runs": "there are no two runs to compare",
        "no_choice": "no two converged runs of one VM and workload differ in their settings",
        "too_many_scenarios": "{count} VMs and workloads are too many for one picture",
    }
