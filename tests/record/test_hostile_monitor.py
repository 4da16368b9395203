"""Does every wrong answer of a monitor end in one line, or in a result that can be read again?

Each key of each answer is replaced by wrong values, removed, and accompanied by another key. The
client is real. Only the socket and the clocks are replaced, so a case takes milliseconds.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpusim.errors import CodedError
from gpusim.formats.errors import ProfileError, RecordingError
from gpusim.formats.profile import check_plausible, profile_of
from gpusim.formats.recording_file import read_document
from gpusim.monitor import dirty_rate, qmp
from gpusim.monitor.commands import HMP_LINE, MEASURING, QUERIES
from gpusim.monitor.dirty_rate import inspect_vm, measure_dirty_rate, plan_measurements
from gpusim.monitor.errors import LiveError
from gpusim.monitor.qmp import Monitor
from gpusim.record import attached, session
from gpusim.record.summary import summarize_attached
from tests.monitor.fake_qmp import (
    ACTIVE,
    COMPLETED,
    GREETING,
    MTREE,
    PARAMETERS,
    RAMBLOCK,
    event,
    page_dump,
)

EVENT = event("MIGRATION_PASS", 1001.0, **{"pass": 2})
ANSWERS: dict[str, Any] = {
    "greeting": GREETING,
    "event": EVENT,
    "qmp_capabilities": {},
    "query-version": GREETING["QMP"]["version"],
    "query-kvm": {"enabled": False, "present": True},
    "query-status": {"running": True, "status": "running"},
    "query-cpus-fast": [{"cpu-index": n, "thread-id": 2**30 + n} for n in range(2)],
    "query-migrate-parameters": PARAMETERS,
    "query-migrate-capabilities": [
        {"capability": "auto-converge", "state": True},
        {"capability": "events", "state": True},
    ],
    "query-migrate": COMPLETED | {"cpu-throttle-percentage": 20, "expected-downtime": 5},
    "active": ACTIVE[3] | {"cpu-throttle-percentage": 20, "expected-downtime": 5},
    "query-dirty-rate": {
        "status": "measured",
        "mode": "page-sampling",
        "dirty-rate": 5,
        "calc-time": 100,
        "start-time": 1,
    },
    "calc-dirty-rate": {},
    "info ramblock": RAMBLOCK,
    "info mtree": MTREE,
    "xp": page_dump(0),
}
WRONG: list[Any] = [
    *(None, True, -1, 0, 0.5, 2**62, "", "x", [], {}, [[]], {"a": 1}),
    *('"\x1b[2J', json.loads("NaN"), 10**400, "completed"),
]


class HostileServer:
    """The other end of a monitor's connection, in memory.

    It closes the connection after 60 answers of query-migrate.

    Attributes:
        asked: commands that arrived, with their arguments.
    """

    def __init__(self, mode: str, changed: str, answer: Any) -> None:
        self.mode, self.changed, self.answer = mode, changed, answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.times: Counter[str] = Counter()
        self.period: Any = None
        self.waiting = self._line(answer if changed == "greeting" else GREETING)

    def _line(self, message: Any) -> bytes:
        return json.dumps(message).encode() + b"\r\n"

    async def sendall(self, _: object, request: bytes) -> None:
        found = json.loads(request)
        command, arguments = found["execute"], found.get("arguments", {})
        self.asked.append((command, arguments))
        key = command
        if command == "human-monitor-command":
            key = " ".join(arguments["command-line"].split()[:2]).split(" /")[0]
        self.times[key] += 1
        if self.times["query-migrate"] > 60:
            self.waiting += b"close"
            return
        if command == "query-migrate":
            at = self.times[key]
            if self.mode == "measure" or at == 1:
                returned: Any = {}
            else:
                returned = ACTIVE[at - 2] if at - 2 < len(ACTIVE) else COMPLETED
            if self.changed == "query-migrate" and (self.mode == "measure" or at > 13):
                returned = self.answer
            if self.changed == "active" and at in (5, 6):
                returned = self.answer
            if self.changed == "event" and at == 4:
                self.waiting += self._line(self.answer)
        elif key == self.changed:
            returned = self.answer
        elif command == "query-dirty-rate":
            returned = self._dirty_rate()
        elif key == "xp":
            returned = page_dump(int(arguments["command-line"].split()[-1], 16), last_word=1)
        else:
            returned = ANSWERS[key]
        if command == "calc-dirty-rate":
            self.period = arguments
        self.waiting += self._line({"return": returned, "id": found["id"]})

    def _dirty_rate(self) -> dict[str, Any]:
        if self.period is None:
            return {"status": "unstarted", "calc-time": 0, "start-time": 0}
        return ANSWERS["query-dirty-rate"] | {"calc-time": self.period["calc-time"]}

    async def recv(self, *_: object) -> bytes:
        if self.waiting == b"close":
            return b""
        chunk, self.waiting = self.waiting, b""
        assert chunk, "the client waits for something that nobody asked for"
        return chunk


async def measure(monitor: Monitor, _: Path) -> None:
    async with monitor:
        vm = await inspect_vm(monitor)
        plan = plan_measurements(vm, "page-sampling", quick=True)
        profile = await measure_dirty_rate(monitor, vm, plan, lambda _: None)
    text = json.dumps(profile.document(), allow_nan=False)
    check_plausible("profile", profile)
    profile_of(Path("profile"), json.loads(text))


async def watch(monitor: Monitor, folder: Path) -> None:
    document = await attached.attach(monitor, lambda _: None, limit_s=100)  # type: ignore[arg-type]
    text = json.dumps(document, allow_nan=False)
    (folder / "x.json").write_text(text)
    summarize_attached(document, folder / "x.json")
    read_document(json.loads(text), "x")


MODES: dict[str, tuple[Callable[[Monitor, Path], Awaitable[None]], Any]] = {
    "measure": (measure, MEASURING),
    "watch": (watch, QUERIES),
}


BOTH = {*QUERIES, "greeting", "event"} - {"query-status"}
ASKED = [
    (mode, key)
    for key in ANSWERS
    for mode in MODES
    if key in BOTH or (mode == "watch") == (key == "active")
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return None

    def clock(step_s: float) -> Callable[[], float]:
        now = iter(range(10**9))
        return lambda: 1000.0 + step_s * next(now)

    watch_s = clock(0.2 / 3)
    monkeypatch.setattr(attached, "time", SimpleNamespace(time=watch_s, monotonic=clock(0.1)))
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=clock(0.1)))
    monkeypatch.setattr(dirty_rate, "time", SimpleNamespace(monotonic=clock(0.1)))
    monkeypatch.setattr(dirty_rate, "ZERO_PAGES", 2)
    monkeypatch.setattr(dirty_rate, "QUICK_S", (0.1, 0.5, 1.0, 2.0, 5.0))
    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(attached, "Monitor", lambda monitor: monitor)


def run(mode: str, server: HostileServer, folder: Path) -> str:
    """Run a mode against the server. Return "accepted" or "refused", or raise.

    A recording whose numbers contradict each other is refused when it is read.
    """
    work, commands = MODES[mode]
    monitor = Monitor("unused", commands)

    async def connected(_: object) -> Any:
        return SimpleNamespace(close=lambda: None)

    async def go() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.sock_sendall, loop.sock_recv = server.sendall, server.recv
        await work(monitor, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qmp, "_open", connected)
        try:
            asyncio.run(go())
        except (LiveError, ProfileError, RecordingError) as error:
            line = str(error)
            assert line.isprintable()
            assert len(line) < 2100
            assert isinstance(error, CodedError)
            return "refused"
    return "accepted"


def changes(value: Any) -> Iterator[Any]:
    """Yield copies of an answer, each with one wrong value in one place."""
    yield from WRONG
    for path in places(value):
        for wrong in WRONG:
            changed = copy.deepcopy(value)
            holder = holder_of(changed, path)
            holder[path[-1]] = wrong
            yield changed
        changed = copy.deepcopy(value)
        del holder_of(changed, path)[path[-1]]
        yield changed
    if isinstance(value, dict):
        yield value | {"another-key": [1, {"a": None}]}
    if isinstance(value, list):
        yield value * 3
    if isinstance(value, str):
        lines = value.splitlines(keepends=True)
        for place in range(0, len(lines), max(1, len(lines) // 10)):
            yield "".join(lines[:place] + lines[place + 1 :])
            yield "".join([*lines[:place], lines[place][: len(lines[place]) // 2]])
            yield "".join([*lines[:place], "x\n", *lines[place:]])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value inside another."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def holder_of(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", MODES)
def test_it_only_sends_what_changes_nothing(mode: str, tmp_path: Path) -> None:
    server = HostileServer(mode, "nothing", None)
    assert run(mode, server, tmp_path) == "accepted"
    sent = {command for command, _ in server.asked}
    others = {command for command in sent if not command.startswith("query-")}
    measuring = {"calc-dirty-rate", "human-monitor-command"} if mode == "measure" else set()
    assert others == {"qmp_capabilities"} | measuring
    for command, arguments in server.asked:
        if command == "human-monitor-command":
            assert HMP_LINE.fullmatch(arguments["command-line"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("mode", "key"), ASKED)
def test_every_wrong_answer_is_one_line_or_a_result(mode: str, key: str, tmp_path: Path) -> None:
    for answer in changes(ANSWERS[key]):
        server = HostileServer(mode, key, answer)
        try:
            run(mode, server, tmp_path)
        except Exception as error:
            raise AssertionError(f"{key} = {answer!r:.300}") from error
