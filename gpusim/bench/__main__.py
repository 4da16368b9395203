"""`python -m gpusim.bench` is `gpusim-bench`."""

import sys

from gpusim.bench.cli import main

sys.exit(main())
