"""Our guest: built from guest.c when it is needed, and the memory in which it counts its writes.

Owns its settings' names and where its counter lies. Compiler and linker write into memory alone, so
nothing is left behind however the recorder ends.
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

from gpusim.monitor.qmp import LiveError

SOURCE = Path(__file__).with_name("guest.c")
LAYOUT = Path(__file__).with_name("guest.ld")
BUILD_TIMEOUT_S = 30
COUNTER_ADDRESS = 0x200000  # guest.c's COUNTER; a page of memory that holds nothing else
COUNTER_BITS = 32
MEMORY_BACKEND = "/memfd:memory-backend-memfd"  # as /proc names RAM of that backend
FREESTANDING = ["-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none"]
COMPILE = ["-m32", "-march=i686", "-mno-sse", "-O2", *FREESTANDING, "-pipe", "-c"]
LINK = ["-m", "elf_i386", "--build-id=none"]
READY = re.compile(r"READY (.*flat_per_s=(\d+).*)")


@contextmanager
def built_guest() -> Iterator[int]:
    """A file in memory that holds the guest, for -kernel; its descriptor.

    Raises:
        LiveError: no compiler, or one that cannot build for 32 bits.
    """
    for program in ("gcc", "ld"):
        if shutil.which(program) is None:
            raise LiveError(
                f"{program} is missing, which builds the guest: install gcc and binutils for x86"
            )
    objects, guest = os.memfd_create("gpusim-guest.o"), os.memfd_create("gpusim-guest")
    try:
        _tool(["gcc", *COMPILE, SOURCE, "-o", _path(objects)], objects)
        _tool(["ld", *LINK, "-T", LAYOUT, "-o", _path(guest), _path(objects)], objects, guest)
        yield guest
    finally:
        os.close(objects)
        os.close(guest)


def _path(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _tool(command: list[str | Path], *handles: int) -> None:
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
        raise LiveError(f"the guest cannot be built: {error}") from None
    if done.returncode:
        said = (done.stderr.strip() or f"{command[0]} failed").splitlines()[-1]
        raise LiveError(f"the guest cannot be built: {said}; expected gcc and ld for x86, 32 bits")


def command_line(settings: Mapping[str, int]) -> str:
    """The guest's settings, as guest.c reads them."""
    return " ".join(f"{key}={value}" for key, value in settings.items())


class Counter:
    """The guest's page writes since boot, read from QEMU's memory while the guest runs.

    Nothing asks QEMU for it: it is the same memory. 32 bits wrap round; whoever reads it more often
    than once in 2^32 writes, half an hour at two million a second, does not see that.
    """

    def __init__(self, qemu_pid: int) -> None:
        """Map the guest's counter.

        Raises:
            LiveError: QEMU is gone, or has no memory of that kind.
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
            raise LiveError("the guest's memory cannot be seen; has QEMU ended?") from None
        self._words = memoryview(self._page).cast("I")
        self._total = self._words[0]

    def read(self) -> tuple[float, int]:
        """Wall clock in seconds, and page writes since boot."""
        now, word = time.time(), self._words[0]
        self._total += (word - self._total) % 2**COUNTER_BITS
        return now, self._total

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._page.close()
