"""Does gpusim-record refuse wrong input in one line, before QEMU starts?"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest

from gpusim.cli import record as cli
from gpusim.record import guest, machine
from gpusim.record.messages import RecordError


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and the one line of a command that fails."""
    code = cli.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return code, lines[0]


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    assert "small " in capsys.readouterr().out


def test_no_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused([], capsys)
    assert (code, line.startswith("error: SCENARIO = none: ")) == (2, True)


def test_a_wrong_value(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused(["small", "guest.size=0"], capsys)
    assert (code, line.startswith("error: guest.size = 0: ")) == (2, True)


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    code, line = refused(["small", "--out", str(tmp_path / "file")], capsys)
    assert (code, line.startswith(f"error: {tmp_path}/file: ")) == (2, True)


def test_no_qemu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, line = refused(["small", "--qemu", "no-such-qemu", "--out", str(out)], capsys)
    assert (code, line.startswith("error: no-such-qemu: ")) == (1, True)
    assert not out.exists()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RecordError) as caught, guest.build_guest():
        pass
    assert (caught.value.code, caught.value.data) == ("no_compiler", {"program": "gcc"})


def test_a_compiler_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("gcc", "ld"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'error: -m32 is unknown here' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecordError) as caught, guest.build_guest():
        pass
    reason = "error: -m32 is unknown here"
    assert (caught.value.code, caught.value.data) == ("cannot_build", {"reason": reason})


def test_a_program_that_cannot_be_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "build_guest", lambda: nullcontext(0))
    (tmp_path / "qemu").write_bytes(b"\x7fno program")
    (tmp_path / "qemu").chmod(0o755)
    code, line = refused(
        ["small", "--qemu", str(tmp_path / "qemu"), "--out", str(tmp_path)], capsys
    )
    error = RecordError("cannot_start", name=tmp_path / "qemu", reason="Exec format error")
    assert (code, line) == (1, f"error: {error}")


def test_an_endless_line_of_qemu_is_cut_and_its_last_line_is_read() -> None:
    async def read() -> list[str]:
        stream, lines = asyncio.StreamReader(), list[str]()
        stream.feed_data(b"x" * 10**6 + b"\nREADY\nend")
        stream.feed_eof()
        await machine._read_lines(stream, lines.append)
        return lines

    long, *others = asyncio.run(read())
    assert len(long) <= machine.LONGEST_LINE + machine.CHUNK_BYTES
    assert others == ["READY", "end"]
