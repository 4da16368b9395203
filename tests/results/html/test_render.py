"""Does render escape text, refuse missing names, and find templates of other packages?"""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from gpusim.results.html.render import render


def test_a_template_of_another_folder_can_use_the_shared_parts(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '{% from "parts.html" import bullets %}{{ bullets([text]) }}'
    )
    assert "<li>&lt;b&gt;</li>" in render("page.html", tmp_path, text="<b>")


def test_a_missing_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ text }}")
    with pytest.raises(UndefinedError, match="text"):
        render("page.html", tmp_path)
