"""A headless Chromium that opens the pages a run leaves, and what it logged while it did.

Debian's `chromium` and `chromium-driver` are used; nothing is downloaded. Where they are missing the
tests are skipped, unless GPUSIM_REQUIRE_BROWSER=1 says that they have to run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRED = os.environ.get("GPUSIM_REQUIRE_BROWSER") == "1"


def missing(what: str) -> NoReturn:
    """Skip, or fail where a browser is required."""
    if REQUIRED:
        pytest.fail(f"{what}, and GPUSIM_REQUIRE_BROWSER=1 asks for it", pytrace=False)
    pytest.skip(what)


def program(*names: str) -> str:
    """Path of the first of these programs that is installed."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or missing(f"no {' or '.join(names)} is installed")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A selenium WebDriver with a profile of its own, which the tests of a session share.

    `browser.get_log("browser")` is the console since it was last asked.
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
