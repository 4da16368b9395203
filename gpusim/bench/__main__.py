"""`python -m gpusim.bench` is `gpusim-bench`."""

import sys

from gpusim.bench.cli import main
from gpusim.command import run_process

sys.exit(run_process("gpusim-bench", main))
