"""Record a live migration of a real QEMU: start a QEMU, or watch one that runs.

Owns the processes, sockets and clocks of a recording. The simulator does not import it, and it
knows none of QEMU's rules. formats/ reads its files, and validation/ compares them with
simulations.
"""
