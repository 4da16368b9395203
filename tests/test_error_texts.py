"""Does every error have a text for each of its codes, and is each text used and printable?"""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

import gpusim
from gpusim.errors import LONGEST_MESSAGE, CodedError
from gpusim.formats.errors import AnswersError, ProfileError, RecordingError, VirshLogError
from gpusim.monitor.errors import LiveError, MonitorClosedError, NoAnswerError
from gpusim.published.errors import TableError
from gpusim.qemu.rules import RuleError
from gpusim.reading import ReadingError
from gpusim.record.messages import CannotWriteError, RecordError
from gpusim.shapes import ShapeError
from gpusim.validation.errors import ValidationError

PACKAGE = Path(gpusim.__file__).parent
SOURCES = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
ERRORS: list[type[CodedError]] = [
    RecordingError, VirshLogError, ProfileError, LiveError, RecordError, CannotWriteError, TableError,
    ValidationError, ReadingError, AnswersError, ShapeError, RuleError,
]  # fmt: skip
RAISED_AS = {
    "fail": RecordingError,
    "MonitorClosedError": LiveError,
    "NoAnswerError": LiveError,
    "WrongAnswerError": LiveError,
}


def raised_codes(error: type[CodedError]) -> set[str]:
    """Return the codes with which the package creates an error."""
    names = {error.__name__, *(name for name, kind in RAISED_AS.items() if kind is error)}
    found = set()
    for tree in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in names:
                    for part in ast.walk(node.args[0]):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            found.add(part.value)
    return found


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_code_has_a_text_and_every_text_a_code(error: type[CodedError]) -> None:
    codes = raised_codes(error)
    if error in (RecordingError, ProfileError):
        codes |= ShapeError.texts.keys()  # raised again with the path
    assert codes == set(error.texts)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_text_is_one_bounded_line(error: type[CodedError]) -> None:
    for code, text in error.texts.items():
        keys = {key for _, key, _, _ in string.Formatter().parse(text) if key}
        numbers = set(re.findall(r"\{(\w+):", text))
        line = str(error(code, **{key: 1.5 if key in numbers else "x\ny" * 999 for key in keys}))
        assert "\n" not in line
        assert len(line) <= LONGEST_MESSAGE
        assert ";" not in text


def test_kinds_of_live_errors_share_their_texts() -> None:
    assert MonitorClosedError.texts is NoAnswerError.texts is LiveError.texts
