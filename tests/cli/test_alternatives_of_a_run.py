"""A run that did not converge shows changes that help. No other run takes time for this."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from gpusim import Config, LimitConfig, LinkConfig, MigrationConfig, VmConfig, WriterConfig
from gpusim.cli import job


def config(*, auto_converge: bool, plot: bool = True, limit: str = "24h") -> Config:
    return Config(
        vm=VmConfig(memory="256MiB", vcpus=2),
        workload=WriterConfig(working_set="128MiB", page_writes_per_s=2e5),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(auto_converge=auto_converge),
        limit=LimitConfig(simulated=limit),
        plot=plot,
    )


def verdict(folder: Path) -> str:
    return json.loads((folder / "summary.json").read_bytes())["verdict"]


@pytest.mark.parametrize(("limit", "ended"), [("24h", "not_converged"), ("30s", "time_limit")])
def test_a_run_that_fails_shows_changes_that_help(limit: str, ended: str, tmp_path: Path) -> None:
    job.run_config(config(auto_converge=False, limit=limit), tmp_path)
    assert verdict(tmp_path) == ended
    page = (tmp_path / "report.html").read_text()
    assert 'id="alternatives"' in page
    assert "<code>migration.auto_converge=true</code>" in page.split("<h1>")[1]


@pytest.mark.parametrize(
    "made", [config(auto_converge=True), config(auto_converge=False, plot=False)]
)
def test_no_other_run_searches_for_changes(
    made: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*_: object) -> NoReturn:
        raise AssertionError("alternatives were simulated")

    monkeypatch.setattr(job, "alternatives", search)
    job.run_config(made, tmp_path)
    assert (tmp_path / "report.html").exists() == made.plot
