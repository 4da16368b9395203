"""QEMU's monitor: connections, the measurement of a dirty rate, and signals that end a command.

It knows sockets, processes and QEMU's queries. It does not know the simulator.
"""
