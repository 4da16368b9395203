"""What the command `gpusim` prints about its runs, besides errors and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Output:
    """What is printed. `gpusim --quiet` and `--json` change it.

    Attributes:
        has_log: the run writes its log. Hydra's settings decide where the log goes.
        has_bar: a progress bar on a terminal.
        shows: what goes to standard output at the end. "text": the verdict, the numbers and the
            folder. "folder": only the folder. "summary": summary.json on one line, with the folder.
            "nothing": a job of a sweep, whose outcome is part of the log.
    """

    has_log: bool = True
    has_bar: bool = True
    shows: Literal["text", "folder", "summary", "nothing"] = "text"


NORMAL = Output()
SILENT = Output(has_log=False, has_bar=False, shows="nothing")
