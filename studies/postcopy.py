"""`python -m studies.postcopy` simulates recorded post-copy migrations.

It writes the tables of docs/validation/post-copy.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gpusim.config.compose import composed_config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Result
from gpusim.reading import read_yaml
from studies.tables import table, with_tables

DOCUMENT = Path("docs/validation/post-copy.md")
FACTS = Path(__file__).parent / "recordings/postgres_postcopy.yaml"
SCENARIOS = {
    "16t": "at once, 16 clients",
    "4t": "at once, 4 clients",
    "5s": "after 5 s",
    "25s": "after 25 s",
    "40s": "after 40 s",
}
# P. Xu's three setups: overrides and the published mean in us.
PUBLISHED = {
    "without preempt": (("migration=qemu_7_2", "migration.postcopy_preempt=false"), 12093),
    "preempt, 7.1": (("migration=qemu_7_2",), 496),
    "preempt, since 8.0": (("migration=qemu_8_2",), 229),
}


@dataclass(frozen=True)
class Figure:
    """A figure of a migration.

    Attributes:
        name: heading, with its unit.
        key: in the file of facts.
        digits: behind the point.
        target: allowed factor between gpusim and a median. 1.03: 3 %. None: not judged.
    """

    name: str
    key: str
    digits: int
    target: float | None = None


FIGURES = (
    Figure("total (s)", "total_s", 2, 1.03),
    Figure("downtime (ms)", "downtime_ms", 0),
    Figure("requests", "requests", 0, 1.5),
    Figure("mean latency (ms)", "latency_ms", 3, 1.5),
    Figure("blocktime (ms)", "blocktime_ms", 1, 2.0),
    Figure("sent in post-copy (GiB)", "sent_gib", 2),
    Figure("discarded runs", "runs", 0),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and write all tables."""
    parser = argparse.ArgumentParser(prog="python -m studies.postcopy", description=__doc__)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    found = {name: simulated(name) for name in SCENARIOS}
    text = options.document.read_text()
    new = {
        "postgres_postcopy": scenario_rows(found),
        "postgres_postcopy_targets": target_rows(found),
        "postcopy_latency": latency_rows({name: latency_us(name) for name in PUBLISHED}),
    }
    options.document.write_text(with_tables(text, new))


def facts() -> dict[str, Any]:
    """Return what the recorded migrations reported, by scenario."""
    found = read_yaml(FACTS)
    assert isinstance(found, dict)
    return found


def simulated(name: str) -> dict[str, float | None]:
    """Return gpusim's figures of a scenario, by the keys of the facts."""
    return figures_of(simulate(composed_config([f"experiment=postgres_postcopy_{name}"])))


def figures_of(result: Result) -> dict[str, float | None]:
    """Return the figures of a run by the keys of the facts."""
    summary, (final,) = result.summary, [s for s in result.syncs if s.kind == "final"]
    return {
        "total_s": summary.total_time_s,
        "downtime_ms": summary.downtime_ms,
        "requests": summary.postcopy_requests,
        "latency_ms": summary.postcopy_latency_ms,
        "blocktime_ms": summary.postcopy_blocktime_ms,
        "sent_gib": (summary.transferred_bytes - final.transferred_bytes) / 2**30,
        "runs": summary.postcopy_discarded_runs,
    }


def latency_us(name: str) -> float:
    """Return the mean time of a request in one of P. Xu's setups."""
    overrides, _ = PUBLISHED[name]
    summary = simulate(composed_config(["experiment=peter_xu_postcopy", *overrides])).summary
    return 1000 * (summary.postcopy_latency_ms or 0)


def scenario_rows(found: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Return a table of each scenario: runs 1 to 4, and gpusim."""
    rows = []
    for name, title in SCENARIOS.items():
        runs = facts()[name]["runs"]
        for figure in FIGURES:
            own = [_text(run[figure.key], figure.digits) for run in runs]
            rows.append([title, figure.name, *own, _text(found[name][figure.key], figure.digits)])
    head = ["scenario", "figure", "run 1", "run 2", "run 3", "run 4", "gpusim"]
    return table(head, rows)


def target_rows(found: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Return a table of gpusim beside the medians, with the factor between them and its limit."""
    rows = []
    for name, title in SCENARIOS.items():
        for figure in FIGURES:
            if figure.target is None:
                continue
            theirs, ours = measured(name, figure.key), found[name][figure.key]
            if theirs is None:
                continue
            both = not theirs and not ours
            kept = both or factor(theirs, ours) <= figure.target
            rows.append(
                [
                    title,
                    figure.name,
                    _text(theirs, figure.digits),
                    _text(ours, figure.digits),
                    "-" if not theirs or not ours else f"{factor(theirs, ours):.2f}",
                    f"{figure.target:g}",
                    "yes" if kept else "no",
                ]
            )
    head = ["scenario", "figure", "measured", "gpusim", "factor", "limit", "kept"]
    return table(head, rows)


def measured(name: str, key: str) -> float | None:
    """Return the median of the ten runs if it is published, and else of runs 1 to 4."""
    own = facts()[name]
    published: float | None = own["median"].get(key)
    if published is not None:
        return published
    values = [run[key] for run in own["runs"] if run[key] is not None]
    # Only one of four runs after 25 s has requests, so the median run has no latency.
    return median(values) if len(values) > 1 else None


def factor(theirs: float | None, ours: float | None) -> float:
    """Return by which factor two figures differ, 1 or more. One of them is 0: infinite."""
    if not theirs or not ours:
        return float("inf")
    return max(theirs / ours, ours / theirs)


def latency_rows(found: Mapping[str, float]) -> list[str]:
    """Return a table of the published mean latencies and gpusim's."""
    rows = [
        [name, f"{published}", f"{found[name]:.0f}", f"{factor(published, found[name]):.2f}"]
        for name, (_, published) in PUBLISHED.items()
    ]
    return table(["QEMU", "published (us)", "gpusim (us)", "factor"], rows)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
