"""A real QEMU: one live migration recorded, by starting QEMU or by watching one that runs.

Owns processes, sockets and clocks of the real world. The simulator does not import it, and it knows
no rule of QEMU's; what it writes, validation/ reads.
"""
