"""Does the wrapper turn every error into one line and the right exit code, and keep its streams?

tests/cli/test_signals.py and test_streams.py ask the same of the commands themselves.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from gpusim import ConfigError
from gpusim.command import (
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_INTERNAL,
    TRACEBACK,
    Interrupted,
    interruption,
    run_command,
)
from gpusim.errors import ResultsError, UsageError
from gpusim.monitor.errors import LiveError
from gpusim.record.messages import RecordError


class NineError(Exception):
    exit_code = 9


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def report(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code of a command that raises an error, and what it prints."""

    def function() -> int:
        raise error

    code = run_command("gpusim-test", function)
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_that_raises_nothing(
    returned: int | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("gpusim-test", lambda: returned) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("link", "x", "must be another"), EXIT_INPUT),
        (UsageError("usage", message="no", command="gpusim-test"), EXIT_INPUT),
        (ResultsError("no results"), EXIT_INPUT),
        (NineError("nine"), 9),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), EXIT_FAILED),
        (OSError("a device is gone"), EXIT_FAILED),
        (OSError(), EXIT_FAILED),
        (MemoryError(), EXIT_FAILED),
        (MemoryError("12 GiB"), EXIT_FAILED),
        (BrokenProcessPool("a process was terminated abruptly"), EXIT_FAILED),
        (RuntimeError("boom"), EXIT_INTERNAL),
        (KeyError(), EXIT_INTERNAL),
        (UnprintableError(), EXIT_INTERNAL),
        (RecursionError("too deep"), EXIT_INTERNAL),
        (GeneratorExit(), EXIT_INTERNAL),
        (ValueError("a\nb\r\x1b[31m\u202e\udcff" * 1000), EXIT_INTERNAL),
        (KeyboardInterrupt(), 130),
        (Interrupted(), 130),
        (Interrupted(signal.SIGTERM), 143),
        (Interrupted(signal.SIGHUP), 129),
        (SystemExit("no\nway"), EXIT_FAILED),
        (SystemExit(["no", "way"]), EXIT_FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_is_one_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = report(error, capsys)
    assert found == code
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert len(line) < 2500


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (5, 5), (True, 1)])
def test_an_exit_with_a_number_is_quiet(
    given: int | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(SystemExit(given), capsys) == (code, "")


@pytest.mark.parametrize("kind", [LiveError, RecordError])
def test_every_code_of_an_error_has_a_line(kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    """An error whose data lacks a key of its text still ends in one line."""
    code = next(code for code, text in kind.texts.items() if "{" in text)
    found, line = report(kind(code), capsys)
    assert found in (EXIT_FAILED, EXIT_INPUT)
    assert line.count("\n") == 1


@pytest.mark.parametrize("path", ["/a/b", b"/a/\xff", Path("/a/b")])
def test_an_error_of_the_system_names_its_file(
    path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    _, line = report(OSError(errno.EACCES, "Permission denied", path), capsys)
    assert "/a/" in line
    assert "Permission denied" in line


def test_an_error_of_two_files_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    _, line = report(OSError(errno.EXDEV, "Invalid link", "/a", None, "/b"), capsys)
    assert "/a" in line
    assert "/b" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_has_a_way_out(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    _, line = report(OSError(number, os.strerror(number), "/a/b"), capsys)
    assert "write elsewhere" in line


def test_a_traceback_comes_if_it_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, line = report(RuntimeError("boom"), capsys)
    assert "Traceback" not in line
    assert TRACEBACK in line
    monkeypatch.setenv(TRACEBACK, "1")
    assert report(RuntimeError("boom"), capsys)[0] == code
    assert "Traceback" in report(ConfigError("link", "x", "must be another"), capsys)[1]


def test_an_interrupt_keeps_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    error = Interrupted(signal.SIGTERM)
    error.add_note("Start it again")
    _, line = report(error, capsys)
    assert line == "error: interrupted by SIGTERM. Start it again\n"


def linked(cause: BaseException | None, context: BaseException | None) -> Exception:
    error = RuntimeError("outer")
    error.__cause__, error.__context__ = cause, context
    return error


INTERRUPT = Interrupted(signal.SIGTERM)


@pytest.mark.parametrize(
    "error",
    [
        INTERRUPT,
        linked(INTERRUPT, None),
        linked(None, INTERRUPT),
        linked(linked(None, INTERRUPT), ValueError()),
        linked(ValueError(), linked(INTERRUPT, None)),
        ExceptionGroup("several", [ValueError(), linked(INTERRUPT, None)]),
        BaseExceptionGroup("several", [INTERRUPT]),
    ],
    ids=["itself", "cause", "context", "deep cause", "deep context", "group", "base group"],
)
def test_an_interrupt_is_found_behind_an_error(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interruption(error) is INTERRUPT
    assert report(error, capsys)[0] == 143


def test_no_interrupt_is_found_in_a_circle() -> None:
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__context__ = second, first
    assert interruption(first) is None
    assert interruption(None) is None


def test_an_interrupt_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(INTERRUPT)).number == signal.SIGTERM


def process(code: str, *options: str, **named: Any) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter whose process is a command with `code` as its work."""
    program = (
        "import os, signal, sys\nfrom gpusim.command import run_process\n"
        f"def work():\n{indent(code, '    ')}\nsys.exit(run_process('gpusim-test', work))"
    )
    command = [sys.executable, *options, "-c", program]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    named = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | named
    return subprocess.run(command, text=True, timeout=60, check=False, **named)


def test_output_of_an_unbuffered_stream_is_there_at_once() -> None:
    done = process("print('first')\nos._exit(0)", "-u")
    assert done.stdout == "first\n"
    done = process("print('first')\nos._exit(0)")
    assert done.stdout == ""


@pytest.mark.parametrize("options", [(), ("-u",)])
def test_output_into_a_slow_non_blocking_pipe_is_whole(options: tuple[str, ...]) -> None:
    """Another program that shares the pipe may have made it non-blocking."""
    code = "os.set_blocking(1, False)\nprint('x' * 300_000)"
    assert process(code, *options).stdout == "x" * 300_000 + "\n"


def test_streams_that_are_missing_are_missing_for_no_child(tmp_path: Path) -> None:
    """A child would open its files in their place: a log would get what is printed."""
    code = (
        "import subprocess\n"
        "links = 'import os; print(*[os.readlink(f\"/proc/self/fd/{n}\") for n in (0, 2)])'\n"
        "found = subprocess.check_output([sys.executable, '-c', links])\n"
        "open('found', 'wb').write(found)"
    )

    def close() -> None:
        for number in range(3):
            os.close(number)

    done = process(code, stdin=None, stdout=None, stderr=None, cwd=tmp_path, preexec_fn=close)
    assert done.returncode == 0
    assert (tmp_path / "found").read_text().split() == [os.devnull] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_a_reader(number: signal.Signals) -> None:
    """The command is over but for its output, and nobody reads the full pipe."""
    code = (
        "import threading\n"
        "main = threading.get_ident()\n"
        "def interrupts():\n"
        "    while sys._current_frames()[main].f_code.co_name != 'write': pass\n"
        f"    os.kill(os.getpid(), {number})\n"
        "os.set_blocking(1, False)\n"
        "try:\n"
        "    while True: os.write(1, bytes(4096))\n"
        "except BlockingIOError: print('last')\n"
        "threading.Thread(target=interrupts).start()"
    )
    reader, writer = os.pipe()
    try:
        done = process(code, stdout=writer)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 128 + number
    assert done.stderr == f"error: interrupted by {number.name}\n"


def test_an_interrupt_that_python_drops_comes_again() -> None:
    code = (
        "class Dropping:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGTERM); [None for _ in range(9)]\n"
        "one = Dropping()\ndel one\nsignal.pause()"
    )
    done = process(code)
    assert (done.returncode, done.stderr) == (143, "error: interrupted by SIGTERM\n")


def test_an_error_in_a_thread_or_a_destructor_is_one_line() -> None:
    code = (
        "import threading\n"
        "class Wrong:\n"
        "    def __del__(self): raise ValueError('first')\n"
        "Wrong()\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()"
    )
    done = process(code)
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["warning"] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_at_once(number: signal.Signals) -> None:
    """The command hangs while it cleans up. A terminal that closes sends SIGHUP twice by itself."""
    second = signal.SIGTERM if number == signal.SIGHUP else number
    code = (
        f"try:\n    os.kill(os.getpid(), {number}); signal.pause()\n"
        f"finally:\n    os.kill(os.getpid(), {number}) if {number != second} else None\n"
        f"    os.kill(os.getpid(), {second}); signal.pause()"
    )
    done = process(code)
    assert (done.returncode, done.stderr) == (-second, "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup starts a command, and as a shell without job control starts one with &."""
    code = "os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGINT)"

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    assert process(code, preexec_fn=ignore).returncode == 0
