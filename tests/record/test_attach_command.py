"""Do gpusim-record --qmp and --libvirt write complete files, and refuse in one line?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpusim.cli import record as cli
from gpusim.formats.recording_file import load_recording
from gpusim.record import attached, files
from gpusim.record.messages import note
from tests.monitor.fake_qmp import ACTIVE, COMPLETED, IDLE, qmp_server

LIBVIRT = Path(__file__).parents[2] / "docs" / "libvirt"


WRONG_NAMES = (
    *("", ".", "..", "../x", "a/b", "/x", "-x", ".x", "a\0b", "a\nb", "\x1b[2J", "\udcff"),
    *("x" * 201, "é" * 101),
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "SAMPLE_EVERY_S", 0.002)


def relayed(path: Path, server: socket.socket) -> None:
    """Serve the socket of the fake once under a path."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with source, target:
            try:
                while received := source.recv(65536):
                    target.sendall(received)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def serve() -> None:
        with listener:
            client, _ = listener.accept()
        forth = server.dup()  # it stays open when the test closes its socket
        back = threading.Thread(target=pump, args=(server.dup(), client.dup()), daemon=True)
        back.start()
        pump(client, forth)

    threading.Thread(target=serve, daemon=True).start()


def test_a_migration_is_watched_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        relayed(tmp_path / "qmp", server)
        out = tmp_path / "out"
        code = cli.main(["--qmp", str(tmp_path / "qmp"), "--out", str(out), "--name", "vm"])
    assert code == 0
    (path,) = out.iterdir()
    assert path.name == "vm.qemu9.a.json.xz"
    assert load_recording(path).total_time_s == 2.7
    assert "completed after" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_writes_what_was_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [0]
    sample = attached._sample

    async def counted(*arguments: object) -> dict[str, object]:
        asked[0] += 1
        if asked[0] == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return await sample(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attached, "_sample", counted)
    with qmp_server([IDLE, *ACTIVE]) as (server, _):
        relayed(tmp_path / "qmp", server)
        code = cli.main(["--qmp", str(tmp_path / "qmp"), "--out", str(tmp_path / "out")])
    assert code == 0
    (path,) = (tmp_path / "out").iterdir()
    assert not load_recording(path).completed
    assert note("ended_early", ended="interrupted") in capsys.readouterr().out


def test_logs_of_virsh_are_converted(tmp_path: Path) -> None:
    logs = ["--libvirt", str(LIBVIRT / "jobs.log"), "--events", str(LIBVIRT / "events.log")]
    assert cli.main([*logs, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert load_recording(path).total_time_s == pytest.approx(11.68, abs=0.01)


def test_a_failed_migration_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with qmp_server([IDLE, *ACTIVE, {"status": "failed"}]) as (server, _):
        relayed(tmp_path / "qmp", server)
        code = cli.main(["--qmp", str(tmp_path / "qmp"), "--out", str(tmp_path / "out")])
    assert code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_at_the_end_leaves_the_cut_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_packed", full)
    with qmp_server([IDLE, *ACTIVE, COMPLETED]) as (server, _):
        relayed(tmp_path / "qmp", server)
        code = cli.main(["--qmp", str(tmp_path / "qmp"), "--out", str(tmp_path / "out")])
    assert code == 1
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "attached.qemu9.cut.a.json"
    assert load_recording(path).total_time_s == 2.7


@pytest.mark.slow
def test_a_killed_recorder_leaves_what_it_saw(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(number: int) -> list[dict[str, object]]:
        if number == 9:
            os.kill(recorder.pid, signal.SIGKILL)
            killed.append(number)
        return []

    with qmp_server([IDLE, *ACTIVE], events_before=kill) as (server, _):
        relayed(tmp_path / "qmp", server)
        command = [sys.executable, "-m", "gpusim.cli.record", "--qmp", "qmp", "--out", "out"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        ) as recorder:
            assert recorder.wait(60) == -signal.SIGKILL
    assert killed == [9]
    (path,) = (tmp_path / "out").iterdir()
    recording = load_recording(path)
    assert not recording.completed
    assert len(recording.samples) == 8


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (["--qmp", "none.sock"], 1, "none.sock: "),
        (["--libvirt", "none.log"], 2, "none.log: "),
        (["small", "--qmp", "none.sock"], 2, "SCENARIO = small: "),
        (["--qmp", "a", "--libvirt", "b"], 2, "--libvirt = b: "),
        (["--qmp", "none.sock", "--repeats", "2"], 2, "--repeats = 2: "),
        (["--libvirt", "none.log", "--qemu", "q"], 2, "--qemu = q: "),
        (["--trace-log", "x"], 2, "--trace-log = x: needs --qmp"),
        (["small", "--limit", "3"], 2, "--limit = 3.0: needs --qmp"),
        (["--events", "x"], 2, "--events = x: needs --libvirt"),
        *((["--qmp", "none.sock", f"--name={name}"], 2, "") for name in WRONG_NAMES),
        (["--qmp", ""], 2, "argument --qmp: "),
        (["small", "--name", "x"], 2, "--name = x: needs --qmp or --libvirt"),
        (["small", "--mode", "dirty-bitmap"], 2, "--mode = dirty-bitmap: needs --measure"),
        (
            ["small", "--measure", "quick", "--mode", "dirty-bitmap"],
            2,
            "--mode = dirty-bitmap: ",
        ),
        (["--qmp", "none.sock", "--trace-log", "none.log"], 1, "none.log: "),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    arguments: list[str],
    code: int,
    start: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    began_s = time.monotonic()
    assert cli.main(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {start}")
    assert time.monotonic() - began_s < 5
    assert list(tmp_path.iterdir()) == []
