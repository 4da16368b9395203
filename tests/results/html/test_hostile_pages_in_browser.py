"""Does a real browser show pages with any name and any text, run no script of theirs, and find links?"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from gpusim.cli.collect import main
from gpusim.results.run_files import write_run
from tests.results.runs import CONFIG, RUNS
from tests.results.sweep_folders import write

SCRIPT = (
    "</script><script>document.title = 'hacked'</script><img src=x onerror=document.title='hacked'>"
)
NAMES = (
    b"undecodable \xff",
    b"a\nline",
    b"%20#?&;\"'<b>",
    b"javascript:alert(1)",
    "\u4e2d\u202e".encode(),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collected sweep, whose folder, runs, settings and reasons are hostile."""
    made = RUNS["not_converged"]()
    policies = f"throttle_rule my_rules:Mine(text={SCRIPT})"
    result = replace(made, summary=replace(made.summary, policies=policies, reason=SCRIPT))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sweep #1 \xfe"))
    rule = {"target": "my_rules:Mine", "args": {SCRIPT[:20]: SCRIPT, "long": "W" * 5000}}
    migration = CONFIG["migration"] | {"throttle_rule": rule}
    write_run(result, folder / "a report #", config=CONFIG | {"migration": migration})
    for number, name in enumerate(NAMES):
        run = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        values = {"vm.memory": SCRIPT if number % 2 else "W" * 5000, "seed": number}
        write(run, values, reason=SCRIPT)
    (folder / "foreign <script>").mkdir()
    assert main([str(folder)]) == 0
    return folder


@pytest.mark.parametrize("width", [400, 1280])
def test_the_pages_are_whole_and_safe(
    width: int,
    folder: Path,
    browser: Any,
    open_page: Callable[[Path], None],
    set_width: Callable[[int], None],
) -> None:
    set_width(width)
    for page in (folder / "index.html", folder / "a report #" / "report.html"):
        open_page(page)
        assert browser.title != "hacked"
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        inner, scroll = browser.execute_script(
            "return [innerWidth, document.documentElement.scrollWidth]"
        )
        assert scroll <= inner
        broken = "return [...document.images].filter(i => !i.naturalWidth).length"
        assert browser.execute_script(broken) == 0
        links = browser.execute_script("return [...document.links].map(a => a.href)")
        targets = [urlsplit(link) for link in links]
        assert {target.scheme for target in targets} == {"file"}
        paths = {unquote_to_bytes(one.path) for one in targets if not one.fragment}
        written = {path for path in paths if os.path.isfile(path)}
        assert paths == written
        assert len(written) > 5
