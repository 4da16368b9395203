"""Can report.html be read in a browser, from disk, on a wide and on a narrow screen?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from gpusim.results import write_run
from tests.results.runs import ALTERNATIVES, CONFIG, RUNS

WIDTHS = (1280, 400)
PAGES = ("converged", "not_converged", "time_limit", "a_thousand_passes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run's folder by its name, with a name that a URL has to quote."""
    made = {}
    for name in PAGES:
        made[name] = tmp_path_factory.mktemp("run") / f"memory=1TiB, seed=3 {name} #1"
        write_run(RUNS[name](), made[name], config=CONFIG, alternatives=ALTERNATIVES)
    return made


@pytest.fixture
def narrow_or_wide(browser: Any) -> Iterator[Any]:
    """A function that sets the width of the viewport; it is given back afterwards."""

    def set_width(width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield set_width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def opened(browser: Any, folder: Path) -> None:
    browser.get_log("browser")  # what an earlier page logged
    browser.get((folder / "report.html").as_uri())


def text_of(browser: Any, css: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())"
    found: list[str] = browser.execute_script(script, css)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_page_opens_without_a_complaint(
    name: str, browser: Any, folders: dict[str, Path]
) -> None:
    opened(browser, folders[name])
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.compatMode") == "CSS1Compat"
    assert browser.title.split(" · ")[0] == text_of(browser, "h1")[0]
    loaded = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert all(url.startswith("data:") for url in browser.execute_script(loaded))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out(
    name: str, width: int, browser: Any, folders: dict[str, Path], narrow_or_wide: Any
) -> None:
    narrow_or_wide(width)
    opened(browser, folders[name])
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    root = "document.documentElement"
    inner, scroll = browser.execute_script(f"return [innerWidth, {root}.scrollWidth]")
    assert inner == width
    assert scroll <= width
    beyond = """
        return [...document.querySelectorAll('th, td, li, p, h1, h2, img')].filter(e =>
            e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1
        ).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.execute_script(beyond) == []


def test_the_picture_is_in_the_page_and_told_in_words(
    browser: Any, folders: dict[str, Path]
) -> None:
    opened(browser, folders["not_converged"])
    script = (
        "const i = document.images; return [i.length, i[0].naturalWidth, i[0].complete, i[0].alt]"
    )
    images, natural_width, complete, alt = browser.execute_script(script)
    assert (images, natural_width, complete) == (1, 1200, True)
    assert "Did not converge" in alt and "throttle" in alt


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str, browser: Any, folders: dict[str, Path]) -> None:
    opened(browser, folders[name])
    links = browser.execute_script("return [...document.links].map(a => [a.href, a.textContent])")
    assert len(links) >= 8
    for href, text in links:
        assert text.strip()
        url = urlparse(href)
        assert url.scheme == "file"
        path = Path(unquote(url.path))
        assert path.is_file() and path.parent == folders[name]
        if path.name == "report.html":
            target = f"return document.getElementById({url.fragment!r}) !== null"
            assert browser.execute_script(target)


def test_a_screen_reader_finds_its_way(browser: Any, folders: dict[str, Path]) -> None:
    opened(browser, folders["not_converged"])
    script = "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => +e.tagName[1])"
    levels = browser.execute_script(script)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert browser.execute_script("return document.documentElement.lang") == "en"
    for landmark in ("body > header", "body > main", "body > footer nav"):
        assert len(text_of(browser, landmark)) == 1
    unnamed = """
        return [...document.querySelectorAll('section, nav')].filter(e =>
            !document.getElementById(e.getAttribute('aria-labelledby'))?.textContent).length"""
    assert browser.execute_script(unnamed) == 0
    assert text_of(browser, "th:not([scope])") == []
    assert len(text_of(browser, "table")) == len(text_of(browser, "table > caption"))


def test_text_stands_out_from_the_page(browser: Any, folders: dict[str, Path]) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5, with its formula of relative luminance."""
    opened(browser, folders["not_converged"])
    script = """
        return [...document.querySelectorAll('h1, h2, p, li, th, td, a, caption, figcaption, code')]
            .map(e => getComputedStyle(e).color)"""
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    for colour in set(browser.execute_script(script)):
        channels = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (luminance + 0.05) >= 4.5, colour


def test_it_works_without_javascript(browser: Any, folders: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, folders["not_converged"])
        by_css = "css selector"
        assert browser.find_element(by_css, "h1").text.startswith("Did not converge")
        summary = browser.find_element(by_css, "details > summary")
        cells = browser.find_element(by_css, "details td")
        assert not cells.is_displayed()
        summary.click()
        assert cells.is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
