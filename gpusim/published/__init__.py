"""Compare the simulator with measurements and models that others published.

Only the command gpusim-validate, the studies and tests import this package.
"""
