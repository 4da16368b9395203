"""A real QEMU against the simulator: recordings, replays of them, and predictions.

Nothing above imports this package; it only calls `gpusim.simulate`, as any user would.
"""
