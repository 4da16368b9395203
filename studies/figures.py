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

from gpusim.parent import die_with_me
from gpusim.results.plots.canvas import narrow_path

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
        if narrow_path(folder / picture).exists():
            shutil.copyfile(narrow_path(folder / picture), narrow_path(options.folder / name))


if __name__ == "__main__":
    main()
