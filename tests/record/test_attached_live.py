"""Is another program's migration recorded through a second monitor, and replayed without its guest?

The tests use every QEMU that is installed, with 128 MiB for six seconds. The replay runs with QEMU's
trace and without. The guest writes by the clock and stays far below the throttle's threshold. A busy
host therefore changes no throttle step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpusim.engine.attempts import simulate
from gpusim.formats.quantities import recorded_quantities, simulated_quantities
from gpusim.formats.recording_file import read_document
from gpusim.monitor.commands import OWN
from gpusim.monitor.qmp import Monitor
from gpusim.record.attached import attach
from gpusim.record.guest import READY, build_guest, command_line
from gpusim.record.machine import find_program
from gpusim.record.scenarios import GuestSettings
from gpusim.record.session import set_capabilities, set_parameters
from gpusim.record.sink import open_sink
from gpusim.record.trace_log import EVENTS
from gpusim.validation.replay import replay_config
from tests.record.qemus import every_qemu, need

MEM_MIB = 128
GUEST = GuestSettings(size=64, rate=2500, paced=1, flat_ms=50)
PARAMETERS = {"max-bandwidth": 24 * 2**20, "downtime-limit": 300}
REPLAY_PERCENT = 8.0  # Five of its sixty windows. On a quiet host it is a fifth of one.
START_TIMEOUT_S = 20.0
SERIAL = "serial"


@asynccontextmanager
async def running(qemu: str, folder: Path) -> AsyncIterator[tuple[str, str, Path]]:
    """Start a QEMU as an administrator does: with two monitors, and a trace into a log."""
    ours, second, log = (folder / name for name in ("a", "b", "log"))
    line = f"-nodefaults -no-user-config -display none -accel tcg -machine pc -m {MEM_MIB}M"
    line += (
        f" -serial file:{folder / SERIAL} -qmp unix:{ours},server=on,wait=off -qmp "
        f"unix:{second},server=on,wait=off"
    )
    line += f" -msg timestamp=on -D {log}" + "".join(f" -trace {name}" for name in EVENTS)
    with build_guest() as kernel:
        process = await asyncio.create_subprocess_exec(
            find_program(qemu),
            *line.split(),
            "-kernel",
            f"/proc/self/fd/{kernel}",
            "-append",
            command_line(GUEST.boot_settings()),
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(kernel,),
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not second.exists():
                    await asyncio.sleep(0.02)
            yield str(ours), str(second), log
        finally:
            process.kill()
            await process.wait()


async def watched(qemu: str, folder: Path) -> dict[str, Any]:
    """Return an attached recording of a migration that another monitor starts."""
    async with running(qemu, folder) as (ours, second, log), Monitor(ours, OWN) as driver:
        await set_capabilities(driver, ["auto-converge"])
        await set_parameters(driver, PARAMETERS)
        shown, serial = asyncio.Event(), folder / SERIAL
        task = asyncio.create_task(attach(second, lambda _: shown.set(), trace_log=log))
        await shown.wait()  # it waits for a migration
        async with asyncio.timeout(START_TIMEOUT_S):
            while not any(READY.fullmatch(line) for line in serial.read_text().splitlines()):
                await asyncio.sleep(0.02)
        with open_sink() as uri:
            await driver.ask("migrate", {"uri": uri})
            return await asyncio.wait_for(task, 60)


@pytest.mark.qemu
@pytest.mark.slow
@every_qemu
def test_an_attached_recording_is_replayed(qemu: str, tmp_path: Path) -> None:
    need(qemu)
    document = asyncio.run(watched(qemu, tmp_path))
    assert document["notes"] == []
    assert document["events"]
    for events in (document["events"], []):
        recording = read_document(document | {"events": events}, "attached")
        truth, again = (
            recorded_quantities(recording),
            simulated_quantities(simulate(replay_config(recording))),
        )
        assert truth.total_time_s is not None
        assert truth.dirty_sync_count >= 3, "nothing became dirty: a check of nothing"
        assert (again.max_throttle_percent, truth.max_throttle_percent) == (0, 0)
        assert again.total_time_s == pytest.approx(truth.total_time_s, rel=REPLAY_PERCENT / 100)
        assert again.transferred_bytes == pytest.approx(truth.transferred_bytes, rel=0.05)
