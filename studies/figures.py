"""`python -m studies.figures` draws the figures of README.md and of the how-to guides again.

It runs what is missing of the sweeps and copies their pictures to docs/figures/. The figures of the
studies come from `python -m studies.fallback_interval`, those of docs/validation/ from
`python -m studies.validation`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpusim.cli.collect import SWEEP_PLOT, wanted_axis
from gpusim.parent import die_with_me
from gpusim.results.plots.canvas import narrow_path, narrow_png
from gpusim.results.plots.compare import draw_comparison, read_runs
from gpusim.results.plots.sweep import draw_sweep
from gpusim.results.sweeps.axes import choose_axes
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.runs import find_runs

GPUSIM = [sys.executable, "-c", "from gpusim.cli.app import main; main()"]
COLLECT = [sys.executable, "-m", "gpusim.cli.collect"]
RUNS = Path("outputs/multirun")
# figure: the overrides of its runs, their folder, the picture in that folder, whether gpusim-collect draws it
FIGURES: dict[str, tuple[list[str], str, str, bool]] = {
    "first_run.png": (["experiment=first_run"], "first_run", "first_run.png", False),
    "vm_size.png": (["sweep=vm_size", "plot=false"], "vm_size", "sweep.png", True),
    "evacuate.png": (["sweep=evacuate", "plot=false"], "evacuate", "sweep.png", True),
    "evacuation.png": (["experiment=evacuate"], "evacuation", "evacuation.png", False),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all figures, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m studies.figures", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", choices=[[], *FIGURES])
    parser.add_argument("--folder", type=Path, default=Path("docs/figures"))
    options = parser.parse_args(arguments)
    for name in options.figures or FIGURES:
        overrides, runs, picture, collected = FIGURES[name]
        folder = RUNS / runs
        place = f"hydra.{'sweep' if 'experiment=evacuate' not in overrides else 'run'}.dir={folder}"
        subprocess.run([*GPUSIM, *overrides, place], check=True, preexec_fn=die_with_me())
        if collected:
            subprocess.run([*COLLECT, str(folder)], check=True, preexec_fn=die_with_me())
        shutil.copyfile(folder / picture, options.folder / name)
        narrow_path(options.folder / name).write_bytes(_narrow(folder, picture))


def _narrow(folder: Path, picture: str) -> bytes:
    """Return the variant of a picture for narrow pages. Runs and sweeps keep it in their page."""
    if narrow_path(folder / picture).exists():
        return narrow_path(folder / picture).read_bytes()
    if picture == SWEEP_PLOT:
        found = find_runs([folder], folder)
        groups, axes = ensembles(found.runs), choose_axes(found.runs, wanted_axis(found))
        return narrow_png(lambda figure: draw_sweep(figure, groups, axes))
    runs, skipped = read_runs(sorted(path for path in folder.glob("[!.]*/")))
    return narrow_png(lambda figure: draw_comparison(figure, runs, skipped))


if __name__ == "__main__":
    main()
