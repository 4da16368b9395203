"""Is report.html well-formed, safe and complete?"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gpusim.results import write_run
from gpusim.results.html.run_page import report_page
from tests.results.html.strict_page import Page
from tests.results.runs import ALTERNATIVES, CONFIG, RUNS, fake

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", RUNS)
def test_every_outcome_has_a_well_formed_page(name: str) -> None:
    for config, changes in ((CONFIG, ALTERNATIVES), (None, None), (CONFIG, [])):
        page = Page(report_page(RUNS[name](), config, changes, PNG, ["summary.json"]))
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
        assert all(th["scope"] in ("row", "col") for th in page.all("th"))
        assert all(img["alt"] for img in page.all("img"))
        labels = [part["aria-labelledby"] for part in (*page.all("section"), *page.all("nav"))]
        assert set(labels) <= set(page.ids)
        assert not page.all("script")


def test_the_page_loads_nothing() -> None:
    text = report_page(RUNS["not_converged"](), CONFIG, ALTERNATIVES, PNG, ["summary.json"])
    page = Page(text)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            link = attributes.get(name) or ""
            assert not re.match(r"(?i)\s*([a-z]+:)?//|https?:|javascript:", link)
    assert "url(" not in text and "@import" not in text
    assert page.all("img")[0]["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def test_text_of_users_is_escaped() -> None:
    evil = "<script>alert('x')</script>\"&"
    config = {"workload": {"writers": {evil: {"pattern": evil}}}, "vm": {evil: evil}, "seed": evil}
    changes = [replace(ALTERNATIVES[0], value=evil), replace(ALTERNATIVES[1], key=evil)]
    run = RUNS["not_converged"]()
    run = replace(run, summary=replace(run.summary, reason=evil, qemu_version=evil))
    page = Page(report_page(run, config, changes, PNG, []))
    assert not page.all("script")
    assert "".join(page.text).count(evil) > 5


def test_the_header_names_the_bottleneck() -> None:
    run = RUNS["converged"]()
    for code, shown in (("page_cost", True), ("link", False)):
        summary = replace(run.summary, bottleneck_code=code, bottleneck="<one> thread")
        header, _ = report_page(replace(run, summary=summary), CONFIG, None, PNG, []).split(
            "<main>"
        )
        assert ("&lt;one&gt; thread" in header) == shown


def test_changes_that_help_come_first() -> None:
    text = report_page(RUNS["not_converged"](), CONFIG, ALTERNATIVES, PNG, [])
    header, body = text.split("<main>")
    assert "<code>link.bandwidth=15Gbit/s</code>" in header
    section = body[body.index('id="alternatives"') : body.index('id="configuration"')]
    for cell in ("20.6 min", "250 ms", "40 %", "12.5 %"):
        assert f"<td>{cell}</td>" in section
    changes = [section.index(f"<code>{one.key}={one.value}</code>") for one in ALTERNATIVES]
    assert changes == sorted(changes)
    assert changes[0] < section.index("</table>") < changes[1]


def test_without_a_change_that_helps_the_header_names_none() -> None:
    text = report_page(RUNS["not_converged"](), CONFIG, ALTERNATIVES[1:], PNG, [])
    header, body = text.split("<main>")
    assert "<code>" not in header
    assert 'class="changes"' not in body
    assert 'id="alternatives"' in body


def test_a_converged_run_shows_no_alternatives() -> None:
    for changes in (None, ALTERNATIVES):
        text = report_page(RUNS["converged"](), CONFIG, changes, PNG, [])
        assert 'id="alternatives"' not in text


def test_settings_keep_the_text_of_the_user() -> None:
    texts = Page(report_page(fake(), CONFIG, None, PNG, [])).text
    for key, value in (
        ("migration.max_bandwidth", "64MiB/s"),
        ("migration.auto_converge", "true"),
        ("link.bandwidth", "1Gbit/s"),
        ("seed", "1"),
    ):
        at = texts.index(key)
        assert value in texts[at : at + 2]
    assert "vm.blocks" not in texts  # null
    mix = {"workload": {"pattern": "mix", "writers": {"nic": {"throttled": False}}}}
    texts = Page(report_page(fake(), mix, None, PNG, [])).text
    assert texts[texts.index("workload.writers.nic.throttled") + 1] == "false"


def test_a_recorded_bandwidth_is_cut_short() -> None:
    config = {"link": {"recorded": [[float(second), second] for second in range(10_000)]}}
    assert len(report_page(fake(), config, None, PNG, [])) < 20_000


def test_links_lead_to_existing_files(tmp_path: Path) -> None:
    write_run(fake(), tmp_path, config=CONFIG)
    page = Page((tmp_path / "report.html").read_text())
    assert {"summary.json", "syncs.csv", "trace.json.gz", "guestperf.json"} <= set(page.links)
    assert all((tmp_path / href).is_file() for href in page.links)
    assert "config.json" not in page.links  # write_run does not write it
