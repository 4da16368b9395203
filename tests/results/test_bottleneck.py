"""Is the line about the sending rate right for one run and for many, also for foreign summaries?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.results.bottleneck import bottleneck_line, find_bottlenecks, run_line


def summary(code: str | None, rate: float = 12.7, link: float | None = 25.0) -> dict[str, Any]:
    return {
        "bottleneck": "one sending thread",
        "bottleneck_code": code,
        "bottleneck_change": f"migration.multifd_channels={round(25 / rate) + 1}",
        "sending_gbit_per_s": rate,
        "link_gbit_per_s": link,
    }


def test_one_run() -> None:
    line = run_line(summary("page_cost"))
    assert line.startswith("uses 12.7 of 25 Gbit/s: one sending thread.")
    assert line.endswith("migration.multifd_channels=3")
    assert run_line(summary("page_cost", link=None)).startswith("uses 12.7 Gbit/s: ")


@pytest.mark.parametrize("code", ["link", None])
def test_a_run_that_the_link_limits_has_no_line(code: str | None) -> None:
    assert run_line(summary(code)) == ""
    assert run_line({}) == ""


def test_many_runs_are_counted() -> None:
    runs = [summary("page_cost", rate) for rate in (12.0, 6.0, 9.0)]
    runs += [summary("max_bandwidth", 1.0), summary("link"), {}]
    first, second = find_bottlenecks(runs)
    assert (first.data["code"], first.data["runs"], first.data["of_runs"]) == ("page_cost", 3, 6)
    assert first.data["sending_gbit_per_s"] == (6.0, 12.0)
    assert first.data["change"] == "migration.multifd_channels=5"  # enough for the slowest
    assert bottleneck_line(first, "migration").startswith("3 of 6 migrations use 6 to 12 of 25 ")
    assert bottleneck_line(second).startswith("1 of 6 runs uses 1 of 25 ")


def test_foreign_texts_are_short_and_on_one_line() -> None:
    foreign = {
        "bottleneck": "a\nb" * 999,
        "bottleneck_code": "x\ny",
        "bottleneck_change": "c" * 999,
    }
    line = run_line(foreign)
    assert "\n" not in line and len(line) < 400
