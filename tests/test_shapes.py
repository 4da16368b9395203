"""Does a shape accept what it declares, and does an error name the path, the value and the rule?"""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from gpusim.errors import LONGEST_MESSAGE
from gpusim.shapes import (
    Anything,
    Flag,
    Keys,
    Names,
    Number,
    OneOf,
    Parsed,
    Row,
    Rows,
    Shape,
    ShapeError,
    Text,
    Whole,
    check,
)

POINT = Keys(
    required={"t": Number(0, 9, " s"), "n": Whole(1, 5)},
    optional={"on": Flag(), "a": Text(3), "b": Anything()},
    defaults={"on": False},
    together=(("a", "b"),),
)
DOCUMENT = Keys(
    required={"points": Rows(POINT)},
    optional={
        "pair": Row((Whole(), Text()), allowed="must be [number, text]"),
        "sizes": Names(Parsed(int, "must be a number")),
        "kind": OneOf(("x", 2)),
    },
    refuse_others=True,
)


def error_of(value: object, shape: Shape = DOCUMENT) -> tuple[str, str, Any]:
    with pytest.raises(ShapeError) as caught:
        check(value, shape)
    error = caught.value
    line = str(error)
    assert (
        line.isprintable() and len(line) <= LONGEST_MESSAGE and line.startswith(error.data["key"])
    )
    assert str(pickle.loads(pickle.dumps(error))) == line
    return error.code, error.data["key"], error.data.get("value")


def test_a_document_is_read_with_its_defaults() -> None:
    given = {"points": [{"t": 1, "n": 2, "more": [3]}, {"t": 0.5, "n": 1, "on": 1, "a": None}]}
    first = {"t": 1.0, "n": 2, "on": False, "a": None, "b": None, "more": [3]}
    second = {"t": 0.5, "n": 1, "on": True, "a": None, "b": None}
    rest = {"pair": (0, "x"), "sizes": {"a": 7}, "kind": 2}
    found = check(given | {"pair": [0, "x"], "sizes": {"a": "7"}, "kind": 2}, DOCUMENT)
    assert found == {"points": [first, second], **rest}
    assert type(found["points"][0]["t"]) is float


@pytest.mark.parametrize(
    ("changes", "code", "key", "value"),
    [
        ({"points": None}, "bad_value", "points", "null"),
        ({"points": {}}, "bad_value", "points", "a mapping of 0 keys"),
        ({"points": [{"t": 1, "n": 1}, {"t": 1}]}, "missing", "points[1].n", None),
        ({"points": [{"t": 10, "n": 1}]}, "bad_value", "points[0].t", 10),
        ({"points": [{"t": math.nan, "n": 1}]}, "bad_value", "points[0].t", None),
        ({"points": [{"t": True, "n": 1}]}, "bad_value", "points[0].t", "true"),
        ({"points": [{"t": "1", "n": 1}]}, "bad_value", "points[0].t", '"1"'),
        ({"points": [{"t": 1, "n": 1.0}]}, "bad_value", "points[0].n", 1.0),
        ({"points": [{"t": 1, "n": 10**400}]}, "bad_value", "points[0].n", 10**400),
        ({"points": [{"t": 1, "n": 1, "on": 2}]}, "bad_value", "points[0].on", 2),
        ({"points": [{"t": 1, "n": 1, "a": "x"}]}, "missing", "points[0].b", None),
        ({"points": [{"t": 1, "n": 1, "a": "xxxx", "b": 1}]}, "bad_value", "points[0].a", '"xxxx"'),
        ({"pair": [1]}, "bad_value", "pair", "a list of 1"),
        ({"pair": [1, 2]}, "bad_value", "pair[1]", 2),
        ({"sizes": []}, "bad_value", "sizes", "a list of 0"),
        ({"sizes": {"a": "x"}}, "bad_value", "sizes.a", '"x"'),
        ({"sizes": {"a": []}}, "bad_value", "sizes.a", "a list of 0"),
        ({"kind": "y"}, "bad_value", "kind", '"y"'),
        ({"kind": [2]}, "bad_value", "kind", "a list of 1"),
        ({"colour": 1}, "unknown_key", "colour", None),
    ],
)
def test_the_first_wrong_value_is_named(
    changes: dict[str, Any], code: str, key: str, value: object
) -> None:
    found = error_of({"points": []} | changes)
    assert found[:2] == (code, key)
    assert value is None or found[2] == value


def test_a_whole_document_of_another_kind() -> None:
    assert error_of([]) == ("bad_value", "the document", "a list of 0")
    assert error_of("x" * 10**6)[:2] == ("bad_value", "the document")


def test_long_and_strange_names_stay_one_line() -> None:
    assert error_of({"points": [], "sizes": {"\x1b\n" * 10**5: []}})[0] == "bad_value"
    assert error_of({"points": [], "x" * 10**6: 1})[0] == "unknown_key"


def test_a_number_above_its_limit() -> None:
    assert check(0.5, Number(0, 1, above=True)) == 0.5
    assert error_of(0, Number(0, 1, above=True))[2] == 0
