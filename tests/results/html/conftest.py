"""A headless Chromium for the tests of the pages.

The tests use Debian's `chromium` and `chromium-driver` and download nothing. They are skipped if one
of the two is missing. With GPUSIM_REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRED = os.environ.get("GPUSIM_REQUIRE_BROWSER") == "1"


def missing(what: str) -> NoReturn:
    """Skip the test, or fail if a browser is required."""
    if REQUIRED:
        pytest.fail(f"{what}, and GPUSIM_REQUIRE_BROWSER=1 asks for it", pytrace=False)
    pytest.skip(what)


def program(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or missing(f"no {' or '.join(names)} is installed")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A selenium WebDriver that all tests of a session share.

    `browser.get_log("browser")` returns the new messages on the console.
    """
    if REQUIRED:
        import selenium  # noqa: F401  # an ImportError is the failure that is asked for
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    profile: Path = tmp_path_factory.mktemp("profile")
    options.add_argument("--headless=new")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--disable-dev-shm-usage")  # containers have little of it
    options.add_argument("--force-device-scale-factor=1")
    options.add_argument("--no-first-run")
    options.add_argument("--disable-background-networking")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def set_width(browser: Any) -> Iterator[Callable[[int], None]]:
    """A function that sets the width of the viewport. The width is reset after the test."""

    def emulate(width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield emulate
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def no_scripts(browser: Any) -> Iterator[None]:
    """JavaScript is off during the test."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture
def open_page(browser: Any) -> Callable[[Path], None]:
    """A function that opens a page. It fails if the browser writes anything to its console."""

    def open_path(path: Path) -> None:
        browser.get_log("browser")  # messages of earlier pages
        browser.get(path.as_uri())
        assert browser.get_log("browser") == []

    return open_path
