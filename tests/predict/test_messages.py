"""Does every code have a text, and does the text show its data?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpusim
from gpusim.predict.messages import TEXTS, text_of
from gpusim.text import Message

SOURCES = Path(gpusim.__file__).parent
CODE = re.compile(r'"([a-z0-9_]+)"')


def test_every_code_has_a_text_and_every_text_a_code() -> None:
    modules = [*(SOURCES / "fit").glob("*.py"), *(SOURCES / "predict").glob("*.py")]
    code = "".join(one.read_text() for one in modules if one.name != "messages.py")
    assert set(re.findall(r'Message\(\s*"(\w+)"', code)) <= TEXTS.keys()
    assert TEXTS.keys() <= set(CODE.findall(code))


@pytest.mark.parametrize(
    ("code", "data", "part"),
    [
        ("not_simulated", {"features": ("xbzrle", "multifd")}, "xbzrle and multifd"),
        ("vcpus_idle", {"idle_percent": 12.34}, "12.3 %"),
        ("goal_first_pass_too_long", {"first_pass_s": 1234.0}, "20.6 min"),
        (
            "curve_grows",
            {"growth_bytes_per_s": 2**20, "longest_s": 10.0, "most_bytes": 2**31},
            "1 MiB/s",
        ),
        (
            "cannot_set",
            {"tool": "Nova", "settings": {"max-cpu-throttle": ("80", "99")}},
            "max-cpu-throttle (80 here, QEMU's default 99)",
        ),
    ],
)
def test_the_key_of_a_value_tells_its_unit(code: str, data: dict[str, object], part: str) -> None:
    assert part in text_of(Message(code, data))


def test_braces_in_a_note_are_text() -> None:
    assert "{link_assumed}" in text_of(Message("profile_note", {"note": "{link_assumed}"}))
