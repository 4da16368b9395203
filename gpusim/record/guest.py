"""The recorder's guest: built from guest.c when needed, and the memory that counts its writes.

Owns the place of the guest's counter. Compiler and linker write only into memory, so no file is
left behind, however the recorder ends.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gpusim.record.messages import RecordError

SOURCE = Path(__file__).with_name("guest.c")
LAYOUT = Path(__file__).with_name("guest.ld")
BUILD_TIMEOUT_S = 30
COUNTER_ADDRESS = 0x200000  # guest.c's COUNTER, in a page of its own
COUNTER_BITS = 32
MEMORY_BACKEND = "/memfd:memory-backend-memfd"  # as /proc names RAM of that backend
FREESTANDING = ["-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none"]
COMPILE = ["-m32", "-march=i686", "-mno-sse", "-O2", *FREESTANDING, "-pipe", "-c"]
LINK = ["-m", "elf_i386", "--build-id=none"]
READY = re.compile(r"READY (.*flat_per_s=(\d+).*)")


@contextmanager
def build_guest() -> Iterator[int]:
    """Build the guest into a file in memory, for -kernel. Yield its descriptor.

    Raises:
        RecordError: no compiler, or one that cannot build for 32 bits.
    """
    for program in ("gcc", "ld"):
        if shutil.which(program) is None:
            raise RecordError("no_compiler", program=program)
    objects, guest = os.memfd_create("gpusim-guest.o"), os.memfd_create("gpusim-guest")
    try:
        _run_tool(["gcc", *COMPILE, SOURCE, "-o", _path(objects)], objects)
        _run_tool(["ld", *LINK, "-T", LAYOUT, "-o", _path(guest), _path(objects)], objects, guest)
        yield guest
    finally:
        os.close(objects)
        os.close(guest)


def _path(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _run_tool(command: list[str | Path], *handles: int) -> None:
    try:
        done = subprocess.run(
            command,
            pass_fds=handles,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RecordError("cannot_build", reason=error) from None
    if done.returncode:
        last_line = (done.stderr.strip() or f"{command[0]} failed").splitlines()[-1]
        raise RecordError("cannot_build", reason=last_line)


def command_line(settings: Mapping[str, int]) -> str:
    """Return the guest's settings as guest.c reads them."""
    return " ".join(f"{key}={value}" for key, value in settings.items())


class Counter:
    """The guest's page writes since boot, read from QEMU's memory while the guest runs.

    QEMU is not asked, because the memory is shared. The guest counts in 32 bits, and `read` extends
    the count. That works if it is called at least once in 2^32 writes, which take half an hour at
    two million writes a second.
    """

    def __init__(self, qemu_pid: int) -> None:
        """Map the guest's counter.

        Raises:
            RecordError: QEMU has ended, or has no memory of that kind.
        """
        folder = Path(f"/proc/{qemu_pid}/fd")
        try:
            path = next(
                entry for entry in folder.iterdir() if os.readlink(entry).startswith(MEMORY_BACKEND)
            )
            handle = os.open(path, os.O_RDONLY)
            try:
                self._page = mmap.mmap(
                    handle, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=COUNTER_ADDRESS
                )
            finally:
                os.close(handle)
        except (OSError, StopIteration, ValueError):
            raise RecordError("no_guest_memory") from None
        self._words = memoryview(self._page).cast("I")
        self._total = self._words[0]

    def read(self) -> tuple[float, int]:
        """Return the wall clock in seconds, and the page writes since boot."""
        now, word = time.time(), self._words[0]
        self._total += (word - self._total) % 2**COUNTER_BITS
        return now, self._total

    def close(self) -> None:
        """Unmap the memory."""
        self._words.release()
        self._page.close()
