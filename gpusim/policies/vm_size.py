"""The size of a VM as managers know it: the memory of its flavour or spec."""

from __future__ import annotations

RAM_STEP = 2**27  # bytes. RAM is a multiple of it. Video memory and ROMs together are smaller


def spec_bytes(total_bytes: int) -> int:
    """Return the memory of a flavour or a VM's spec, in bytes: no video memory and no ROMs.

    Args:
        total_bytes: guest memory that QEMU migrates.
    """
    return total_bytes // RAM_STEP * RAM_STEP or total_bytes
