"""What QEMU decides, as scalars and small state; every rule cites where QEMU has it."""
