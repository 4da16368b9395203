"""Is the folder of a report the whole run of the median migration, and does its page show the prediction?"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpusim.config.compose import composed_config
from gpusim.config.run_hash import run_hash
from gpusim.config.schema import Config, PolicyConfig, TrackingConfig
from gpusim.engine.attempts import simulate
from gpusim.predict import prediction_text
from gpusim.predict.document import document
from gpusim.predict.experiment import experiment_yaml
from gpusim.predict.prediction import Member, Prediction
from gpusim.predict.report import introduction_of, write_report
from gpusim.results import begin_run, read_summary, whole_run
from gpusim.results.html.run_page import report_page
from gpusim.text import Message
from tests.predict import advised, predictions
from tests.results.html.strict_page import Page
from tests.results.runs import RUNS


def idle() -> Prediction:
    config = predictions.config(writers=())
    member = Member(config=config, summary=predictions.summary(), throttle_s={})
    return predictions.prediction(fit=predictions.fit(writers=()), members=(member,) * 3)


WHOLE = {  # one second each: a run and two pictures
    "mixed": lambda: predictions.prediction(13, 20),
    "idle": idle,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_run_with_its_prediction(name: str, tmp_path: Path) -> None:
    prediction = WHOLE[name]()
    folder = tmp_path / "new"
    assert write_report(prediction, None, None, folder) == folder / "report.html"
    config = replace(prediction.median_member.config, plot=True)
    assert whole_run(folder, run_hash(config), plot=True)
    found = json.loads((folder / "prediction.json").read_text())
    assert found == document(prediction)
    assert (folder / "prediction.png").read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {part["aria-labelledby"] for part in page.all("section")} <= set(ids)
    assert all(th["scope"] in ("row", "col") for th in page.all("th"))
    hrefs = [str(link["href"]) for link in page.all("a") if not str(link["href"]).startswith("#")]
    assert {"prediction.json", "prediction.png", "experiment/fitted.yaml"} <= set(hrefs)
    assert all((folder / href).is_file() for href in hrefs)
    assert not page.all("script")
    text = " ".join("".join(page.text).split())
    assert text.count(prediction_text.title(prediction)) >= 2  # of the page and its heading
    assert text.index(prediction_text.answer(prediction)[0]) < text.index("Key figures")
    again, summary = simulate(config).summary, read_summary(folder)
    assert (summary["seed"], summary["total_time_s"]) == (again.seed, again.total_time_s)


def test_text_from_a_profile_is_not_markup() -> None:
    evil = "<script>alert('x')</script>\"&"
    odd = predictions.prediction(
        profile=predictions.profile(source=evil),
        assumptions=(Message("profile_note", {"note": evil}),),
    )
    page = Page(
        report_page(
            RUNS["converged"](), None, None, b"", [], introduction_of(odd, None, None, b"", b"")
        )
    )
    assert not page.all("script")
    assert "".join(page.text).count(evil) >= 2


def test_a_full_disk_and_a_plain_run_leave_no_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(predictions.prediction(), None, None, tmp_path)
    rename = os.replace

    def full_disk(source: Path, target: Path) -> None:
        if Path(target).name == "prediction.json":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "replace", full_disk)
        write_report(predictions.prediction(), None, None, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["config.json"]
    (tmp_path / "prediction.json").write_text("of an earlier run")
    begin_run(predictions.config(), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["config.json"]


def with_migration(config: Config, **keys: Any) -> Config:
    return replace(config, migration=replace(config.migration, **keys))


CONFIGS = {
    "two_writers": predictions.config(),
    "idle": predictions.config(writers=()),
    "tcg": replace(predictions.config(), tracking=TrackingConfig(mode="tcg", first_write_cost_ns=420)),
    "parameters": with_migration(
        predictions.config(7), version="qemu_10_1", downtime_limit=500, max_bandwidth=33554432.0
    ),
    "policy": with_migration(
        predictions.config(),
        throttle_rule=PolicyConfig(
            target="gpusim.policies.cloud_hypervisor:CloudHypervisorThrottle", args={}
        ),
    ),
    "blocks": replace(
        predictions.config(), vm=replace(predictions.config().vm, blocks=[2**26 - 2**20, 2**20])
    ),
}  # fmt: skip


def test_the_page_shows_advice_and_better_settings() -> None:
    html = introduction_of(
        predictions.prediction(), advised.advice(advised.stalled()), advised.better(), b"", b""
    ).html
    assert '<th scope="row">cpu_throttle_initial</th><td>20</td><td>50</td>' in html
    assert "<td>14Gbit/s (90 s, throttle 50 %)</td>" in html
    assert "migrate_set_parameter multifd-channels 2" in html


@pytest.mark.parametrize("name", CONFIGS)
def test_the_experiment_composes_to_the_config_of_the_median(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    member = Member(config=config, summary=predictions.summary(), throttle_s={})
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(experiment_yaml(predictions.prediction(members=(member,)), path))
    overrides = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"]
    assert composed_config(overrides) == replace(config, plot=True)
    faster = composed_config([*overrides, "link.bandwidth=25Gbit/s", "seed=99"])
    assert (faster.link.bandwidth, faster.seed) == ("25Gbit/s", 99)


def test_the_experiment_shows_its_command() -> None:
    text = experiment_yaml(predictions.prediction(), Path("a folder/experiment/web.yaml"))
    assert text.splitlines()[:2] == [
        "# @package _global_",
        "# gpusim --config-dir 'a folder' experiment=web",
    ]
    assert "--config-dir mine experiment=fitted" in experiment_yaml(predictions.prediction())
    elsewhere = experiment_yaml(predictions.prediction(), Path("/tmp/web.yaml")).splitlines()[1]
    assert elsewhere == (
        "# Save as mine/experiment/web.yaml: gpusim --config-dir mine experiment=web"
    )
