"""Can a user sort, filter and follow index.html of a sweep, with and without a mouse?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gpusim.cli.collect import main
from tests.results.sweep_folders import write, write_failed, write_grid

FALLBACK = "migration.fallback_sync_interval"
MEMORIES = {"64GiB": 30.0, "1TiB": 400.0, "512GiB": 1000.0, "10TB": 5.0}  # and their total times
WIDTHS = (1280, 400)
OpenPage = Callable[[Path], None]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A collected sweep. Its names contain characters that a URL has to quote."""
    folder = tmp_path / "a sweep #1"
    for seed in (1, 2):
        for memory, time_s in MEMORIES.items():
            values = {"vm.memory": memory, "seed": seed, FALLBACK: "never"}
            write(folder / f"memory={memory}, seed={seed}", values, total_time_s=time_s + seed)
    write_failed(folder / "failed & gone", {"vm.memory": "24TiB", "seed": 1})
    stalled = {"vm.memory": "4TiB", "seed": 1, FALLBACK: None}
    write(folder / "stalled", stalled, total_time_s=2000.0, verdict="not_converged")
    (
        write(folder / "reported", {"vm.memory": "2TiB"}, total_time_s=70.0) / "report.html"
    ).write_text("<!DOCTYPE html><title>The report</title>")
    sweep = {"question": "Is <this> it?", "command": "gpusim -m", "x": "vm.memory"}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    assert main([str(folder)]) == 0
    return folder


def column(browser: Any, heading: str) -> list[str]:
    """Return the texts of a column of the visible rows, from the top."""
    script = """
      const table = document.getElementById("table");
      const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
      const place = heads.indexOf(arguments[0]);
      return [...table.tBodies[0].rows].filter(row => row.offsetParent !== null)
        .map(row => row.cells[place].textContent.trim());
    """
    found: list[str] = browser.execute_script(script, heading)
    return found


def button(browser: Any, heading: str) -> Any:
    return browser.find_element("xpath", f"//table[@id='table']//th/button[text()='{heading}']")


def sorts(browser: Any) -> dict[str, str]:
    """Return aria-sort of each column of the table of runs."""
    script = """
      const cells = [...document.getElementById("table").tHead.rows[0].cells];
      return Object.fromEntries(cells.map(c => [c.textContent, c.getAttribute("aria-sort")]));
    """
    found: dict[str, str] = browser.execute_script(script)
    return found


def test_a_click_sorts_by_number(browser: Any, sweep: Path, open_page: OpenPage) -> None:
    open_page(sweep / "index.html")
    assert set(sorts(browser).values()) == {"none"}
    button(browser, "VM memory").click()
    sizes = ["64 GiB"] * 2 + ["512 GiB"] * 2 + ["1 TiB"] * 2 + ["2 TiB"]
    sizes += ["4 TiB"] + ["10 TB"] * 2 + ["24 TiB"]  # 10 TB are 9.09 TiB
    assert column(browser, "VM memory") == sizes
    assert sorts(browser)["VM memory"] == "ascending"
    button(browser, "VM memory").click()
    assert column(browser, "VM memory") == sizes[::-1]
    assert sorts(browser)["VM memory"] == "descending"
    button(browser, "Run").click()
    assert [name for name, order in sorts(browser).items() if order != "none"] == ["Run"]


def test_enter_sorts_and_a_missing_number_is_always_last(
    browser: Any, sweep: Path, open_page: OpenPage
) -> None:
    open_page(sweep / "index.html")
    times = sorted(time_s + seed for time_s in MEMORIES.values() for seed in (1, 2))
    expected = sorted([*times, 70.0, 2000.0])
    for order in (expected, expected[::-1]):
        button(browser, "Total time (s)").send_keys("\ue007")  # Enter
        found = column(browser, "Total time (s)")
        assert [float(text) for text in found[:-1]] == order
        assert found[-1] == ""
    assert sorts(browser)["Total time (s)"] == "descending"
    assert browser.switch_to.active_element.text.startswith("Total time")  # the focus stays


def test_the_filters_show_matching_rows_and_their_number(
    browser: Any, sweep: Path, open_page: OpenPage
) -> None:
    open_page(sweep / "index.html")
    shown = browser.find_element("id", "shown")
    assert (shown.text, shown.get_attribute("aria-live")) == ("11 of 11 runs shown", "polite")
    browser.find_element("id", "filter").send_keys("1tib SEED=2")
    assert column(browser, "Run") == ["memory=1TiB, seed=2"]
    assert shown.text == "1 of 11 runs shown"
    browser.find_element("id", "filter").clear()
    choice = browser.find_element("id", "outcome")
    options = [option.text for option in choice.find_elements("tag name", "option")]
    assert options == ["all", "converged", "did not converge", "failed"]
    choice.send_keys("failed")
    assert column(browser, "Run") == ["failed & gone"]
    browser.find_element("id", "filter").send_keys("nothing like it")
    assert shown.text == "0 of 11 runs shown"


@pytest.mark.parametrize("moves", [False, True], ids=["in place", "moved"])
def test_links_lead_to_the_runs(
    moves: bool, browser: Any, sweep: Path, open_page: OpenPage
) -> None:
    folder = Path(shutil.move(sweep, sweep.parent / "moved away")) if moves else sweep
    open_page(folder / "index.html")
    browser.find_element("link text", "reported").click()
    assert browser.title == "The report"
    open_page(folder / "index.html")
    browser.find_element("link text", "memory=10TB, seed=2").click()
    summary = json.loads(browser.find_element("tag name", "pre").text)
    assert summary["total_time_s"] == 7.0
    open_page(folder / "index.html")
    targets = [link.get_property("pathname") for link in browser.find_elements("tag name", "a")]
    assert len(targets) > 11
    assert [target for target in targets if not Path(unquote(target)).is_file()] == []


@pytest.mark.parametrize("pixels", WIDTHS)
def test_the_table_scrolls_sideways_and_the_page_does_not(
    pixels: int, browser: Any, sweep: Path, open_page: OpenPage, set_width: Any
) -> None:
    set_width(pixels)
    open_page(sweep / "index.html")
    script = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    whole, seen = browser.execute_script(script)
    assert whole <= seen <= pixels
    regions = browser.find_elements("css selector", "[role=region]")
    assert len(regions) == 2  # runs, and statistics over seeds
    for region in regions:
        assert region.get_attribute("tabindex") == "0"
        assert region.accessible_name in ("Runs", "Statistics over seeds")
        browser.execute_script("arguments[0].focus(); arguments[0].scrollLeft = 9999", region)
        assert browser.switch_to.active_element == region


def test_every_control_has_a_name(browser: Any, sweep: Path, open_page: OpenPage) -> None:
    open_page(sweep / "index.html")
    controls = browser.find_elements("css selector", "a, button, input, select, summary, img")
    assert len(controls) > 25
    assert [c.get_attribute("outerHTML")[:80] for c in controls if not c.accessible_name] == []
    assert browser.find_element("id", "filter").accessible_name == "Filter"
    assert browser.find_element("id", "outcome").accessible_name == "Outcome"
    assert browser.find_element("tag name", "h1").text == "Is <this> it?"


@pytest.mark.usefixtures("no_scripts")
def test_without_scripts_the_table_has_no_controls(browser: Any, sweep: Path) -> None:
    browser.get((sweep / "index.html").as_uri())
    assert len(browser.find_elements("css selector", "#table tbody tr")) == 11
    assert browser.find_elements("css selector", "#table button") == []
    assert not browser.find_element("id", "filter").is_displayed()
    assert browser.find_element("link text", "stalled").is_displayed()


@pytest.mark.slow
def test_two_thousand_rows_sort_and_filter(
    browser: Any, tmp_path: Path, open_page: OpenPage
) -> None:
    write_grid(tmp_path, 2000)
    assert main([str(tmp_path)]) == 0
    open_page(tmp_path / "index.html")
    button(browser, "Total time (s)").click()
    times = [float(text) for text in column(browser, "Total time (s)")]
    assert len(times) == 2000
    assert times == sorted(times)
    browser.find_element("id", "filter").send_keys("memory=64GiB seed=7")
    assert len(column(browser, "Run")) == 20
