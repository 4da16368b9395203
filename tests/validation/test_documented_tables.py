"""The tables of docs/validation.md and README.md are what the command computes today."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim.documents import places, with_tables
from gpusim.validation.document import TABLES, _changed, main
from tests.app.command import REPOSITORY

DOCUMENTS = [REPOSITORY / "docs" / "validation.md", REPOSITORY / "README.md"]
QUICK = {"replay_figures", "replay", "headline", "awake"}  # the others take more than some seconds


def test_every_table_has_a_place_and_every_place_a_table() -> None:
    found = [name for path in DOCUMENTS for name in places(path.read_text())]
    assert sorted(found) == sorted(TABLES)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TABLES]
)
def test_a_table_is_what_is_computed(name: str) -> None:
    """A line that has changed is printed by the failing assertion, ready to be pasted."""
    (text,) = (t for path in DOCUMENTS if name in places(t := path.read_text()))
    new = with_tables(text, {name: TABLES[name]()})
    changed = [line for line in new.splitlines() if line not in text.splitlines()]
    assert new == text, "\n".join(changed)


def test_a_check_writes_nothing_and_names_what_changed(tmp_path: Path, capsys) -> None:
    document = tmp_path / "d.md"
    document.write_text("before\n<!-- headline -->\nan old line\n<!-- end -->\nbehind\n")
    arguments = ["headline", "--documents", str(document)]
    assert main([*arguments, "--check"]) == 1
    assert "an old line" in document.read_text()
    assert "half of" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "an old line" not in document.read_text()
    assert document.read_text().startswith("before\n")
    assert document.read_text().endswith("<!-- end -->\nbehind\n")
    assert main([*arguments, "--check"]) == 0


def test_a_line_that_goes_is_a_change_too() -> None:
    assert _changed("a\nb\nb\nc\n", "a\nb\nc\n") == ["-b"]
    assert _changed("a\nb\n", "b\na\n")
    assert _changed("a\n", "a\n") == []
