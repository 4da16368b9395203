"""Do published tables have sources, commands that compose, and fits on rows that judge nothing?"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from statistics import mean
from typing import Any

import pytest
import yaml

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.published import outcomes, tables
from gpusim.published.errors import TableError
from gpusim.published.tables import FittedValue, Row, Table
from gpusim.units import parse_bytes, parse_bytes_per_s
from tests.published.fitting import fit_value

TABLES = [tables.load(name) for name in tables.names()]
SEEDS = {"total_s": 10, "first_pass_s": 2}
KINDS_OF_ROWS = {  # One row of each preset and choice of keys. The slow test runs all rows.
    (table.name, *(re.sub(r"(\.\w+)=.*", r"\1", text) for text in row.overrides)): row
    for table in TABLES
    for row in table.rows
}
FITTED = [
    pytest.param(table, value, id=f"{value.key} on {value.row}")
    for table in TABLES
    for value in table.fitted
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table_names_its_source_and_what_is_missing(table: Table) -> None:
    source = table.source
    assert all([source.author, source.title, source.date, source.where, table.what, table.heading])
    assert table.readings or table.left_out
    assert table.not_published or table.kind == "model"


@cache
def config_of(run: str) -> Config:
    """Return the config of a row's command, composed once."""
    return outcomes.configs(Row(name="", run=run))[0]


@pytest.mark.parametrize("row", KINDS_OF_ROWS.values(), ids=lambda row: row.run or "left out")
def test_command_composes_and_can_be_simulated(row: Row) -> None:
    if row.run:
        resolve(config_of(row.run))


def value_of(row: Row, key: str) -> float:
    """Return a key of a row's config as a number."""
    found: Any = config_of(row.run)
    for name in key.split("."):
        found = getattr(found, name)
    if isinstance(found, str):
        return parse_bytes_per_s(found) if found.endswith("/s") else float(parse_bytes(found))
    return float(found)


@pytest.mark.parametrize(("table", "value"), FITTED)
def test_fitted_number_stands_in_its_presets(table: Table, value: FittedValue) -> None:
    assert value_of(table.row(value.row), value.key) == value.value
    assert value.low <= value.holds[0] <= value.value <= value.holds[1] <= value.high


@pytest.mark.slow
@pytest.mark.parametrize(("table", "value"), FITTED)
def test_fitted_number_comes_out_again(table: Table, value: FittedValue) -> None:
    """The value is closer to its row than its neighbours. All candidates would take minutes.

    The seeds of a row differ in their total times. Their first passes are equal to 0.2 s.
    """
    near = replace(
        value,
        low=max(value.low, value.value - value.step),
        high=min(value.high, value.value + value.step),
    )
    best, holds = fit_value(table, near, most_seeds=SEEDS[value.quantity])
    assert best == pytest.approx(value.value)
    assert holds[0] <= value.value <= holds[-1]
    assert value.holds[0] <= holds[0]
    assert holds[-1] <= value.holds[-1]


def test_a_row_that_something_was_fitted_on_judges_nothing() -> None:
    for table in TABLES:
        for row in table.rows:
            assert not (table.fitted_on(row) and table.judges(row))
    smartx = tables.load("smartx")
    assert [row.name for row in smartx.rows if smartx.judges(row)] == [
        "v1 5000 MB, original",
        "v2 150 MB, with sync",
        "v2 3000 MB, original",
        "v2 3000 MB, with sync",
        "v2 3500 MB, original",
        "v2 3500 MB, with sync",
    ]


def test_one_write_rate_and_one_host_a_letter() -> None:
    """A fitted value is the same in all rows that it decides."""
    smartx = tables.load("smartx")
    rates = {value_of(row, "workload.page_writes_per_s") for row in smartx.rows}
    scans = {(row.name[:2], value_of(row, "link.zero_page_scan")) for row in smartx.rows}
    assert len(rates) == 1
    assert len(scans) == 2
    rk4n = tables.load("rk4n_2016")
    assert len({value_of(row, "workload.page_writes_per_s") for row in rk4n.rows}) == 1


@pytest.mark.parametrize(
    ("name", "mbit_per_s"),
    [
        ("plaintext, 1 channel", 22_000),
        ("TLS, 1 channel", 5_274),
        ("TLS, 2 channels", 8_329 / 2),
        ("TLS, 4 channels", 8_329 / 2),
        ("TLS, 6 channels", 8_329 / 2),
        ("TLS, 8 channels", 8_329 / 2),
    ],
)
def test_threads_of_tls_send_what_was_measured_on_other_rows(name: str, mbit_per_s: float) -> None:
    """A page and its header take 4104 bytes. Rows whose own throughput is the input judge nothing."""
    table = tables.load("tls_channels")
    cost_ns = value_of(table.row(name), "link.page_cost_ns")
    assert cost_ns == pytest.approx(4104 * 8 / mbit_per_s * 1000, rel=0.001)
    own = {22_000: "plaintext, 1 channel", 5_274: "TLS, idle guest", 8_329 / 2: "TLS, 2 channels"}
    assert not table.judges(table.row(own[mbit_per_s]))


LINK = {"v1": 1.59e9 / 8, "v2": 1.93e9 / 8}
BASE_S = {"v1": 103, "v2": 46}  # the first pass over zero pages: "about 100 s" and "45 to 51 s"


@pytest.mark.parametrize("name", ["v1 3000 MB", "v1 5000 MB", "v2 3000 MB", "v2 3500 MB"])
def test_closed_form_of_the_originals(name: str) -> None:
    """Nine increases after two high periods each need 19 passes of the set."""
    row = tables.load("smartx").row(f"{name}, original")
    set_bytes = value_of(row, "workload.working_set")
    closed_s = BASE_S[name[:2]] + 19 * set_bytes / LINK[name[:2]]
    assert mean(row.total_s) == pytest.approx(closed_s, rel=0.04)


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("2 workers, 20/10", 27),
        ("2 workers, 30/15", 18),
        ("2 workers, 50/20", 12),
        ("3 workers, 50/20", 12),
        ("3 workers, 20/10", 27),
    ],
)
def test_closed_form_of_qemu_2_6(name: str, passes: int) -> None:
    """An increase needs three high periods. The first period may not count, then one pass more."""
    row = tables.load("rk4n_2016").row(name)
    pass_s = value_of(row, "workload.working_set") / 117.5e6
    assert passes * pass_s * 0.98 < mean(row.total_s) < (passes + 1) * pass_s * 1.04


def test_law_of_a_syncs_time() -> None:
    """The verdicts of the table follow from the law."""
    law = tables.load("sync_time_law")
    for row in law.rows:
        config = config_of(row.run)
        b, d = 15.0, value_of(row, "workload.page_writes_per_s") * 4096 / 1e9
        x, y = config.tracking.misaligned_ms, config.migration.downtime_limit
        if x > 100 - 100 * d / b:
            converges = y > b * x / (b - d)
        else:
            converges = y > 100 * d * x / ((b - d) * (100 - x))
        assert row.converges == converges, row.name


def test_unknown_table_is_one_line_with_all_names() -> None:
    with pytest.raises(TableError) as caught:
        tables.load("xy")
    assert (caught.value.code, caught.value.data["table"]) == ("no_such_table", "xy")
    assert set(caught.value.data["known"].split(", ")) == set(tables.names())
    with pytest.raises(TableError) as caught:
        tables.load("tls")
    assert str(caught.value).endswith("zero_pages. Did you mean tls_channels?")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kind": "guess"}, "wrong_kind"),
        ({"rows": [], "fitted": {}}, "wrong_names"),
        (
            {"rows": [{"name": "a", "run": "rm -rf", "total_s": [1]}], "fitted": {}},
            "wrong_command",
        ),
        ({"rows": [{"name": "a", "total_s": [1]}], "fitted": {}}, "no_command"),
        ({"rows": [{"name": "a", "run": "gpusim"}], "fitted": {}}, "total_time_or_never"),
        ({"rows": [{"name": "a", "run": "gpusim", "total": [1]}], "fitted": {}}, "unusable"),
        ({"fitted": {"row": "nowhere"}}, "fitted_elsewhere"),
    ],
)
def test_damaged_table_is_one_line(
    change: dict[str, Any], code: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = yaml.safe_load((tables.DATA / "smartx.yaml").read_text())
    if "fitted" in change:
        fitted = [{**sound["fitted"][0], **change["fitted"]}] if change["fitted"] else []
        change = {**change, "fitted": fitted}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**sound, **change}))
    monkeypatch.setattr(tables, "DATA", tmp_path)
    tables.load.cache_clear()
    with pytest.raises(TableError) as error:
        tables.load("bad")
    assert (error.value.code, error.value.data["table"]) == (code, "bad.yaml")
    assert "\n" not in str(error.value)
