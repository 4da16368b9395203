"""Does gpusim-record say in one line what is missing, before anything starts?"""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from gpusim.cli import record as cli
from gpusim.monitor import qmp as monitor
from gpusim.monitor import signals
from gpusim.monitor.qmp import LiveError
from gpusim.record import guest, machine


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    code = cli.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return code, lines[0]


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    assert "small " in capsys.readouterr().out


def test_signals_are_the_callers_again(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in signals.ENDING]
    cli.main(["--list"])
    assert [signal.getsignal(number) for number in signals.ENDING] == before


def test_no_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused([], capsys)
    assert (code, "name one of" in line) == (2, True)


def test_a_wrong_value(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused(["small", "guest.size=0"], capsys)
    assert (code, line.startswith("error: guest.size = 0: ")) == (2, True)


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    code, line = refused(["small", "--out", str(tmp_path / "file")], capsys)
    assert (code, "cannot be written" in line) == (2, True)


def test_no_qemu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "require_qmp", lambda: None)
    out = tmp_path / "out"
    code, line = refused(["small", "--qemu", "no-such-qemu", "--out", str(out)], capsys)
    assert code == 1
    assert "no-such-qemu: no such program; install Debian's qemu-system-x86" in line
    assert not out.exists()


def test_no_qmp_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "is_installed", lambda package: False)
    code, line = refused(["small"], capsys)
    assert (code, "pip install '.[qemu]'" in line) == (1, True)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LiveError, match=r"gcc is missing.*install gcc"), guest.built_guest():
        pass


def test_a_compiler_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("gcc", "ld"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'error: -m32 is unknown here' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LiveError, match="-m32 is unknown here; expected"), guest.built_guest():
        pass


def test_a_program_that_cannot_be_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qemu.qmp")
    monkeypatch.setattr(machine, "built_guest", lambda: nullcontext(0))
    (tmp_path / "qemu").write_bytes(b"\x7fno program")
    (tmp_path / "qemu").chmod(0o755)
    code, line = refused(
        ["small", "--qemu", str(tmp_path / "qemu"), "--out", str(tmp_path)], capsys
    )
    assert code == 1
    assert "cannot be started (Exec format error)" in line


def test_an_error_that_nobody_waits_for_adds_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """What asyncio would tell of a connection that was cut: the one line is the recorder's own."""

    async def cut_short() -> int:
        async def fails() -> None:
            raise EOFError

        lost = asyncio.gather(fails())
        await asyncio.sleep(0.01)
        del lost
        gc.collect()
        return 1

    assert signals.ended_by_signals(cut_short()) == 1
    assert not caplog.records  # asyncio would log it, to stderr
