"""Is a CSV file the same on every machine?"""

from __future__ import annotations

from gpusim.files import csv_text


def test_csv_text_has_plain_line_ends_and_quotes_what_it_must() -> None:
    assert csv_text([["a", "b"], [1, None], ["x,y", 'say "no"']]) == (
        'a,b\n1,\n"x,y","say ""no"""\n'
    )
