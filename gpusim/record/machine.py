"""A QEMU of ours: started with our guest, watched, and gone when the block ends, whatever happens.

Owns the process and everything it opens. Nothing of it has a name in the file system: the guest, its
memory and the monitor are descriptors that QEMU inherits. The kernel kills QEMU when the recorder
dies. It does not know what a recording is.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

from gpusim.monitor.qmp import LiveError, Monitor
from gpusim.record.guest import Counter, built_guest
from gpusim.record.trace_log import EVENTS, TraceLine, parsed

PR_SET_PDEATHSIG = 1  # linux/prctl.h
END_TIMEOUT_S = 2.0  # before the next, harder way
KEPT_LINES = 20


@dataclass(kw_only=True)
class Heard:
    """What QEMU and the guest said so far.

    Attributes:
        serial: the guest's lines.
        trace: QEMU's trace events.
        complaints: QEMU's other lines, the last few.
    """

    serial: list[str] = field(default_factory=list)
    trace: list[TraceLine] = field(default_factory=list)
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def log_line(self, line: str) -> None:
        """File a line of QEMU's stderr."""
        event = parsed(line, time.time())
        if event is not None:
            self.trace.append(event)
        elif line and "trace event" not in line:  # "warning: trace event ... does not exist"
            self.complaints.append(line)

    @property
    def last_words(self) -> str:
        """QEMU's last complaint, to end a sentence with."""
        return f"; QEMU's last words: {self.complaints[-1]}" if self.complaints else ""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running QEMU: its process, its monitor, its guest's counter, and what they said."""

    process: asyncio.subprocess.Process
    monitor: Monitor
    counter: Counter
    heard: Heard
    listening: asyncio.Future[tuple[None, None]]  # ends with the pipes

    @property
    def runs(self) -> bool:
        """Whether the process is there still."""
        return self.process.returncode is None


def program(name: str) -> str:
    """Path of a QEMU.

    Raises:
        LiveError: there is none of that name.
    """
    path = shutil.which(name)
    if path is None:
        raise LiveError(
            f"{name}: no such program; install Debian's qemu-system-x86, or name one with --qemu"
        )
    return path


def arguments(
    kernel: int, monitor: int, mem_mib: int, settings: str, accelerator: str
) -> list[str]:
    """QEMU's command line behind the program.

    Args:
        kernel, monitor: descriptors that QEMU inherits.
    """
    line = f"-nodefaults -no-user-config -display none -no-reboot -smp 1 -accel {accelerator}"
    line += " -machine pc,memory-backend=pc.ram"
    line += f" -object memory-backend-memfd,id=pc.ram,share=on,size={mem_mib}M -m {mem_mib}M"
    line += f" -chardev socket,id=monitor,fd={monitor} -mon chardev=monitor,mode=control"
    line += " -serial stdio -msg timestamp=on"
    line += "".join(f" -trace {event}" for event in EVENTS)
    return [*line.split(), "-kernel", f"/proc/self/fd/{kernel}", "-append", settings]


@asynccontextmanager
async def started(
    qemu: str, *, mem_mib: int, settings: str, accelerator: str
) -> AsyncIterator[Machine]:
    """QEMU with our guest, from its monitor's greeting on; the guest may still boot.

    Args:
        qemu: the program; a wrapper has to exec it, or it outlives a recorder that is killed.
        settings: the guest's, as guest.command_line writes them.

    Raises:
        LiveError: QEMU does not start, with its own reason; or the guest cannot be built.
    """
    heard = Heard()
    async with AsyncExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        kernel = stack.enter_context(built_guest())
        command = arguments(kernel, theirs.fileno(), mem_mib, settings, accelerator)
        try:
            process = await asyncio.create_subprocess_exec(
                program(qemu),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(kernel, theirs.fileno()),
                start_new_session=True,  # Ctrl-C is the recorder's to act on
                preexec_fn=_dies_with(os.getpid()),
            )
        except OSError as error:
            raise LiveError(f"{qemu}: cannot be started ({error.strerror})") from None
        monitor = Monitor(ours)
        theirs.close()  # so that QEMU's end is the only one, and its death is heard
        listening = asyncio.gather(
            _each_line(process.stdout, heard.serial.append),
            _each_line(process.stderr, heard.log_line),
        )
        stack.push_async_callback(_hear_out, listening)  # ends once QEMU has ended
        stack.push_async_callback(_end, process, monitor)
        try:
            await monitor.connect()
            counter = stack.enter_context(closing(Counter(process.pid)))
        except LiveError as error:
            await _end(process, monitor)
            await _hear_out(listening)
            raise LiveError(f"QEMU does not start: {error}{heard.last_words}") from None
        yield Machine(
            process=process, monitor=monitor, counter=counter, heard=heard, listening=listening
        )


async def how_it_ended(machine: Machine) -> str:
    """Why QEMU is gone, in words; it has hung up."""
    try:
        code = await asyncio.wait_for(machine.process.wait(), END_TIMEOUT_S)
    except TimeoutError:
        return "QEMU hung up its monitor"
    await _hear_out(machine.listening)
    if any(event.data.get("reason") == "guest-reset" for event in machine.monitor.events):
        return "the guest crashed and reset the machine"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"QEMU {how}{machine.heard.last_words}"


async def _end(process: asyncio.subprocess.Process, monitor: Monitor) -> None:
    """Have QEMU quit; kill it where it does not."""
    if process.returncode is None:
        with suppress(LiveError):
            await monitor.ask("quit", timeout_s=END_TIMEOUT_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
            break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    await process.wait()
    await monitor.close()


async def _hear_out(listening: asyncio.Future[tuple[None, None]]) -> None:
    """Wait for the end of the pipes; a process that QEMU left behind may hold them open."""
    task = asyncio.current_task()
    assert task is not None
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(listening, END_TIMEOUT_S)
    except asyncio.CancelledError:  # the listening's own; a signal's is obeyed
        if task.cancelling():
            raise


async def _each_line(stream: asyncio.StreamReader | None, take: Callable[[str], None]) -> None:
    assert stream is not None
    async for line in stream:
        take(line.decode(errors="replace").rstrip())


def _dies_with(recorder: int) -> Callable[[], None]:
    """Run in the child before QEMU: the kernel shall kill it when the recorder dies."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != recorder:  # it died before that was set
            os._exit(1)

    return prepare
