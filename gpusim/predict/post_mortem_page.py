"""The folder of `gpusim-predict --explain --report`: one page, and the same in numbers."""

from __future__ import annotations

import json
from pathlib import Path

from gpusim.files import whole_folder, write_text
from gpusim.predict import post_mortem_text as text
from gpusim.predict.post_mortem import PostMortem
from gpusim.results.html.render import render
from gpusim.results.run_files import REPORT
from gpusim.version import __version__

TEMPLATES = Path(__file__).with_name("templates")
NUMBERS = "post_mortem.json"


def write_page(found: PostMortem, folder: Path) -> Path:
    """Write report.html and post_mortem.json, and return the path of the page.

    Raises:
        OSError: a file cannot be written. An empty folder is empty again.
    """
    numbers = json.dumps(text.post_mortem_document(found), indent=1, allow_nan=False) + "\n"
    page = page_of(found)
    with whole_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / NUMBERS, numbers)
        write_text(folder / REPORT, page)
    return folder / REPORT


def page_of(found: PostMortem) -> str:
    """Return the page as HTML, which needs no other file and no network."""
    return render(
        "post_mortem.html",
        TEMPLATES,
        title=text.title(found),
        heading=text.title(found),
        header_class="converged" if found.coarse.is_seen else "",
        subtitle=f"{found.intake.path.name} is {found.intake.kind.name}.",
        answer=text.answer(found),
        happened=text.happened(found),
        why=text.why(found),
        head=text.PERIODS_HEAD,
        periods=text.period_rows(found),
        footer=f"Written by gpusim {__version__}. Simulated figures are for guests fitted to this file.",
    )
