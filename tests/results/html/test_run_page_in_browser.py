"""Can a browser show report.html from disk, on a wide and on a narrow screen?"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from gpusim.results import write_run
from tests.results.runs import ALTERNATIVES, CONFIG, RUNS, switched

WIDTHS = (1280, 400)
OpenReport = Callable[[str], None]
PAGES = ("converged", "not_converged", "time_limit", "a_thousand_passes", "post_copy")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs by name. Each path contains characters that a URL has to quote."""
    made = {}
    for name in PAGES:
        made[name] = tmp_path_factory.mktemp("run") / f"memory=1TiB, seed=3 {name} #1"
        result = switched() if name == "post_copy" else RUNS[name]()
        write_run(result, made[name], config=CONFIG, alternatives=ALTERNATIVES)
    return made


@pytest.fixture
def open_report(open_page: Callable[[Path], None], folders: dict[str, Path]) -> OpenReport:
    """A function that opens the page of a run by its name."""
    return lambda name: open_page(folders[name] / "report.html")


def text_of(browser: Any, css: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())"
    found: list[str] = browser.execute_script(script, css)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_page_opens_without_a_message_on_the_console(
    name: str, browser: Any, open_report: OpenReport
) -> None:
    open_report(name)
    assert browser.execute_script("return document.compatMode") == "CSS1Compat"
    assert browser.title.split(" · ")[0] == text_of(browser, "h1")[0]
    loaded = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert all(url.startswith("data:") for url in browser.execute_script(loaded))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_no_element_leaves_the_screen(
    name: str, width: int, browser: Any, open_report: OpenReport, set_width: Callable[[int], None]
) -> None:
    set_width(width)
    open_report(name)
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


def test_the_page_contains_the_picture_and_describes_it(
    browser: Any, open_report: OpenReport
) -> None:
    open_report("not_converged")
    script = (
        "const i = document.images; return [i.length, i[0].naturalWidth, i[0].complete, i[0].alt]"
    )
    images, natural_width, complete, alt = browser.execute_script(script)
    assert (images, natural_width, complete) == (1, 1200, True)
    assert text_of(browser, "h1")[0] in alt


@pytest.mark.parametrize("name", PAGES)
def test_every_link_has_a_target(
    name: str, browser: Any, folders: dict[str, Path], open_report: OpenReport
) -> None:
    open_report(name)
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


def test_a_screen_reader_can_navigate(browser: Any, open_report: OpenReport) -> None:
    open_report("not_converged")
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


def test_the_contrast_of_text_is_sufficient(browser: Any, open_report: OpenReport) -> None:
    """WCAG 2.2, 1.4.3 requires a contrast of 4.5 and defines the relative luminance."""
    open_report("not_converged")
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


@pytest.mark.usefixtures("no_scripts")
def test_the_page_works_without_javascript(browser: Any, open_report: OpenReport) -> None:
    open_report("not_converged")
    assert browser.find_element("tag name", "h1").is_displayed()
    summary = browser.find_element("css selector", "details > summary")
    cells = browser.find_element("css selector", "details td")
    assert not cells.is_displayed()
    summary.click()
    assert cells.is_displayed()
