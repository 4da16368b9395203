"""The folder of `gpusim-predict --fleet FILE --report FOLDER`: fleet.html, fleet.csv and fleet.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gpusim.files import whole_folder, write_text
from gpusim.predict.fleet import FleetAnswer
from gpusim.predict.fleet_bounds import FURTHER, NEVER, SURELY
from gpusim.predict.fleet_text import (
    BOUNDED,
    LABELS,
    PAGE_HEAD,
    REASONS,
    assumptions,
    distributions,
    fleet_csv,
    fleet_document,
    measure_lines,
    page_cells,
    summary_lines,
)
from gpusim.results.html.render import render
from gpusim.version import __version__

TEMPLATES = Path(__file__).with_name("templates")
PAGE, TABLE, DOCUMENT = "fleet.html", "fleet.csv", "fleet.json"
MOST_ROWS, MOST_COMMANDS = 2000, 200  # on the page. The table has all of them.


def write_fleet(answer: FleetAnswer, folder: Path) -> Path:
    """Write the page, the table and the document, and return the path of the page.

    Raises:
        OSError: a file cannot be written. An empty folder is empty again.
    """
    with whole_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / TABLE, fleet_csv(answer))
        numbers = json.dumps(fleet_document(answer), indent=1, allow_nan=False)
        write_text(folder / DOCUMENT, numbers + "\n")
        write_text(folder / PAGE, fleet_html(answer))
    return folder / PAGE


def fleet_html(answer: FleetAnswer) -> str:
    """Return the page, which needs no other file and no network."""
    shown = answer.rows[:MOST_ROWS]
    further = [row for row in shown if row.judged.answer == FURTHER]
    codes = list(dict.fromkeys(row.judged.reason for row in answer.rows))
    counts = [(LABELS[one], answer.count(one), one) for one in (NEVER, FURTHER, SURELY)]
    return render(
        "fleet.html",
        TEMPLATES,
        title=f"Fleet: {answer.fleet.path.name}",
        heading="Which VMs migrate?",
        header_class="converged" if answer.count(SURELY) == len(answer.rows) else "sweep",
        summary=summary_lines(answer)[0],
        counts=counts,
        bounded=BOUNDED,
        head=PAGE_HEAD,
        rows=[(row.judged.answer, page_cells(row)) for row in shown],
        left_out=len(answer.rows) - len(shown),
        reasons=[REASONS[code] for code in codes],
        distributions=list(distributions(answer)),
        commands=[(row.vm.title, measure_lines(answer, row)) for row in further[:MOST_COMMANDS]],
        commands_left_out=max(0, answer.count(FURTHER) - MOST_COMMANDS),
        assumptions=assumptions(answer),
        faults=_faults(answer),
        table=TABLE,
        document=DOCUMENT,
        version=__version__,
    )


def _faults(answer: FleetAnswer) -> Sequence[str]:
    shown = [str(one) for one in answer.faults[:MOST_COMMANDS]]
    more = len(answer.faults) - len(shown)
    return [*shown, f"{more} more rows cannot be used"] if more else shown
