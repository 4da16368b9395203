"""Start a QEMU with the recorder's guest, and end it when the block ends, whatever happens.

Owns the process and all that it opens. No part of it has a name in the file system: QEMU inherits
the guest, its memory and the monitor as descriptors. The kernel kills QEMU when the recorder dies.
This module does not know what a recording is.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

from gpusim.monitor.commands import OWN
from gpusim.monitor.errors import LiveError
from gpusim.monitor.qmp import Monitor
from gpusim.parent import die_with_me
from gpusim.record.guest import Counter, build_guest
from gpusim.record.messages import RecordError, qemu_line
from gpusim.record.trace_log import EVENTS, TraceLine, parse_trace_line

END_TIMEOUT_S = 2.0  # before the next, stronger way to end QEMU
KEPT_LINES = 20
KEPT_SERIAL_LINES = 1000
CHUNK_BYTES = 2**16
LONGEST_LINE = 2**16  # bytes of QEMU's output


@dataclass(kw_only=True)
class Output:
    """The lines that QEMU and the guest have printed.

    Attributes:
        serial: the last of the guest's lines.
        trace: QEMU's trace events.
        complaints: the last few of QEMU's other lines.
    """

    serial: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_SERIAL_LINES))
    trace: list[TraceLine] = field(default_factory=list)
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def add_line(self, line: str) -> None:
        """Add a line of QEMU's stderr."""
        event = parse_trace_line(line, time.time())
        if event is not None:
            self.trace.append(event)
        elif line and "trace event" not in line:  # "warning: trace event ... does not exist"
            self.complaints.append(line)

    @property
    def qemu_line(self) -> str:
        """Return QEMU's last complaint as the end of a sentence, or nothing."""
        return qemu_line(list(self.complaints))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running QEMU: its process, its monitor, its guest's counter, and their output."""

    process: asyncio.subprocess.Process
    monitor: Monitor
    counter: Counter
    output: Output
    reading: asyncio.Future[tuple[None, None]]  # ends when the pipes close

    @property
    def runs(self) -> bool:
        """Return whether the process still runs."""
        return self.process.returncode is None


def find_program(name: str) -> str:
    """Return the path of a QEMU.

    Raises:
        RecordError: there is no program of that name.
    """
    path = shutil.which(name)
    if path is None:
        raise RecordError("no_program", name=name)
    return path


def qemu_arguments(
    kernel: int, monitor: int, mem_mib: int, settings: str, accelerator: str
) -> list[str]:
    """Return QEMU's command line after the program.

    Args:
        kernel: descriptor of the guest, which QEMU inherits.
        monitor: descriptor of the monitor's socket, which QEMU inherits.
        mem_mib: RAM, MiB.
        settings: the guest's, as guest.command_line writes them.
        accelerator: tcg or kvm.
    """
    line = f"-nodefaults -no-user-config -display none -no-reboot -smp 1 -accel {accelerator}"
    line += " -machine pc,memory-backend=pc.ram"
    line += f" -object memory-backend-memfd,id=pc.ram,share=on,size={mem_mib}M -m {mem_mib}M"
    line += f" -chardev socket,id=monitor,fd={monitor} -mon chardev=monitor,mode=control"
    line += " -serial stdio -msg timestamp=on"
    line += "".join(f" -trace {event}" for event in EVENTS)
    return [*line.split(), "-kernel", f"/proc/self/fd/{kernel}", "-append", settings]


@asynccontextmanager
async def start_qemu(
    qemu: str, *, mem_mib: int, settings: str, accelerator: str
) -> AsyncIterator[Machine]:
    """Start QEMU with the guest. Yield it when its monitor answers. The guest may still boot.

    Args:
        qemu: the program. A wrapper has to exec QEMU, or QEMU outlives a recorder that is killed.
        mem_mib: RAM, MiB.
        settings: the guest's, as guest.command_line writes them.
        accelerator: tcg or kvm.

    Raises:
        RecordError: QEMU does not start, or the guest cannot be built.
    """
    output = Output()
    async with AsyncExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        kernel = stack.enter_context(build_guest())
        command = qemu_arguments(kernel, theirs.fileno(), mem_mib, settings, accelerator)
        try:
            process = await asyncio.create_subprocess_exec(
                find_program(qemu),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(kernel, theirs.fileno()),
                start_new_session=True,  # Ctrl-C goes to the recorder alone
                preexec_fn=die_with_me(),
            )
        except OSError as error:
            raise RecordError("cannot_start", name=qemu, reason=error.strerror) from None
        monitor = Monitor(ours, OWN)
        theirs.close()  # QEMU then holds the only copy, and its death closes the connection
        reading = asyncio.gather(
            _read_lines(process.stdout, output.serial.append),
            _read_lines(process.stderr, output.add_line),
        )
        stack.push_async_callback(_finish_reading, reading)  # ends once QEMU has ended
        stack.push_async_callback(_end, process, monitor)
        try:
            await monitor.connect()
            counter = stack.enter_context(closing(Counter(process.pid)))
        except LiveError as error:
            await _end(process, monitor)
            await _finish_reading(reading)
            raise RecordError("does_not_start", reason=error, qemu_line=output.qemu_line) from None
        yield Machine(
            process=process, monitor=monitor, counter=counter, output=output, reading=reading
        )


async def find_end(machine: Machine) -> RecordError:
    """Return why QEMU has ended, after it closed its monitor."""
    try:
        code = await asyncio.wait_for(machine.process.wait(), END_TIMEOUT_S)
    except TimeoutError:
        return RecordError("qemu_closed")
    await _finish_reading(machine.reading)
    await machine.monitor.read_last_events()
    if any(event.data.get("reason") == "guest-reset" for event in machine.monitor.events):
        return RecordError("guest_crashed")
    line = machine.output.qemu_line
    if code < 0:
        return RecordError("qemu_killed", signal=-code, qemu_line=line)
    return RecordError("qemu_ended", exit_code=code, qemu_line=line)


async def _end(process: asyncio.subprocess.Process, monitor: Monitor) -> None:
    """Ask QEMU to quit. Kill it if it does not, or if a signal ends the wait for it."""
    try:
        await _ask_to_end(process, monitor)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()  # a loop that closes before complains on stderr
        monitor.close()


async def _ask_to_end(process: asyncio.subprocess.Process, monitor: Monitor) -> None:
    if process.returncode is None:
        with suppress(LiveError):
            await monitor.ask("quit", timeout_s=END_TIMEOUT_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
            break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


async def _finish_reading(reading: asyncio.Future[tuple[None, None]]) -> None:
    """Wait for the end of the pipes. A process that QEMU left behind may hold them open."""
    task = asyncio.current_task()
    assert task is not None
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(reading, END_TIMEOUT_S)
    except asyncio.CancelledError:  # of the reading itself is ignored, of a signal is passed on
        if task.cancelling():
            raise


async def _read_lines(stream: asyncio.StreamReader | None, take: Callable[[str], None]) -> None:
    """Take each line until the end. Of a longer line the first bytes are kept."""
    assert stream is not None
    rest = b""
    while chunk := await stream.read(CHUNK_BYTES):
        *lines, rest = (rest[:LONGEST_LINE] + chunk).split(b"\n")
        for line in lines:
            take(line.decode(errors="replace").rstrip())
    if rest:
        take(rest.decode(errors="replace").rstrip())
