"""Compare the simulator with a real QEMU: replay recordings, and predict them.

It calls `gpusim.simulate` as any user would. Only the command gpusim-validate and the studies
import this package.
"""
