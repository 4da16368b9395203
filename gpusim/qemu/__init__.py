"""QEMU's decisions as rules with small state. Every rule cites its place in QEMU."""
