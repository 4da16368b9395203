"""Does every kill leave one clear line, only complete files, and no running process?

A case is a seed: it draws what dies (the recorder, QEMU, or the guest) and when.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gpusim.formats.recording_file import load_recording
from gpusim.record.messages import RecordError
from tests.record.qemus import QEMUS, need

CASES, AT_ONCE = 16, 3
LATEST_S = 7.0  # a recording takes about so long
ENDS_WITHIN_S, GONE_WITHIN_S = 30.0, 5.0
WAYS = ("SIGKILL recorder", "SIGTERM recorder", "SIGINT recorder", "SIGKILL QEMU", "guest crashes")
SCENARIO = """
mem_mib: 64
limit_s: 5
before_s: 0.2
capabilities: [auto-converge]
parameters: {max-bandwidth: 10485760}
guest: {size: 16, rate: 4000, flat_ms: 20}
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a case. `code` is the recorder's exit code."""

    way: str
    delay_s: float
    code: int
    stderr: str
    files: list[str]
    whole: int
    left_running: list[str]
    leftovers: list[str]


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """Yield the processes of a case, which have its mark in their environment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                if mark.encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    yield int(folder.name), command


def kill(way: str, recorder: subprocess.Popen[str], mark: str) -> None:
    """Kill the recorder or QEMU, as the way says, if it runs."""
    number, _, whom = way.partition(" ")
    with suppress(ProcessLookupError):
        if whom == "recorder":
            recorder.send_signal(signal.Signals[number])
        for pid, command in marked(mark) if whom == "QEMU" else ():
            if "memory-backend-memfd" in command:
                os.kill(pid, signal.SIGKILL)


def case(seed: int, folder: Path, way: str | None = None, latest_s: float = LATEST_S) -> Outcome:
    """Start a recording, kill a part of it at a random moment, and return what is left."""
    draw = random.Random(seed)
    way = way or draw.choice(WAYS)
    delay_s = draw.uniform(0, latest_s)
    crash_after = int(draw.uniform(1, 20_000)) if way == "guest crashes" else 0
    home = folder / str(seed)
    for name in ("out", "tmp"):
        (home / name).mkdir(parents=True)
    (home / "tiny.yaml").write_text(SCENARIO)
    mark = f"GPUSIM_TEST_CASE={os.getpid()}-{folder.name}-{seed}-"
    command = [sys.executable, "-m", "gpusim.cli.record", "tiny.yaml", "--out", "out"]
    command += ["--qemu", QEMUS[seed % len(QEMUS)], f"guest.crash_after={crash_after}"]
    environment = {
        **os.environ,
        **dict([mark.split("=")]),
        "TMPDIR": str(home / "tmp"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with subprocess.Popen(
        command,
        cwd=home,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as recorder:
        assert recorder.stdout is not None
        recorder.stdout.readline()  # it stands: "recording ..."
        with suppress(subprocess.TimeoutExpired):
            recorder.wait(delay_s)
        if way != "guest crashes":
            kill(way, recorder, mark)
        _, stderr = recorder.communicate(timeout=ENDS_WITHIN_S)
    return Outcome(
        way=way,
        delay_s=delay_s,
        code=recorder.returncode,
        stderr=stderr,
        files=[path.name for path in (home / "out").iterdir()],
        whole=sum(bool(load_recording(path)) for path in (home / "out").glob("*.json.xz")),
        left_running=gone(mark),
        leftovers=[str(path) for path in (home / "tmp").rglob("*")]
        + [path.name for path in home.iterdir() if path.name not in ("out", "tmp", "tiny.yaml")],
    )


def gone(mark: str) -> list[str]:
    """Return the commands of a case that still run, after a compiler had time to end."""
    for pid, _ in marked(mark):
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            select.select([process], [], [], GONE_WITHIN_S)  # readable once it has ended
            os.close(process)
    left = list(marked(mark))
    for pid, _ in left:  # a failure of this test burdens no other
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [command for _, command in left]


def check(found: Outcome) -> None:
    """Compare an outcome with the promise in the first line of this file."""
    assert not found.left_running, found
    assert not found.leftovers, found
    assert len(found.files) == found.whole <= 1, (
        found
    )  # one that was killed may just have written it
    assert found.whole or found.code != 0, found
    if found.code == 0:  # it was faster
        assert not found.stderr, found
    elif found.code == -signal.SIGKILL:
        assert found.way == "SIGKILL recorder", found
    else:
        assert re.fullmatch(r"\n?error: [^\n]+\n", found.stderr), found
        expected = {"SIGTERM recorder": 143, "SIGINT recorder": 130}.get(found.way, 1)
        assert found.code == expected, found
        causes = {"SIGKILL QEMU": "signal 9", "guest crashes": str(RecordError("guest_crashed"))}
        assert causes.get(found.way, "interrupted by") in found.stderr, found


@pytest.mark.qemu
def test_killed_early(tmp_path: Path) -> None:
    """Kill the recorder and QEMU soon after the start."""
    need(QEMUS[0])
    ways = ("SIGTERM recorder", "SIGKILL recorder", "SIGKILL QEMU")
    with ThreadPoolExecutor(len(ways)) as pool:
        cases = [
            pool.submit(case, seed, tmp_path, way, latest_s=1.5) for seed, way in enumerate(ways)
        ]
    for found in cases:
        check(found.result())


@pytest.mark.qemu
@pytest.mark.slow
def test_random_moments(tmp_path: Path) -> None:
    need(QEMUS[0])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(partial(case, folder=tmp_path), range(CASES)))
    for outcome in found:
        check(outcome)
    died = Counter(outcome.way for outcome in found if outcome.code)
    assert set(died) == set(WAYS), f"not every way was tried in time: {died}"
    assert sum(died.values()) >= CASES // 2, f"most recordings were over before: {died}"
