"""A plugin of pytest: the tests, and each Python process that they start, find the played device.

`pytest -p tests.parity.played.everywhere` runs any tests as on a machine with a GPU. The variables
of tests/parity/fake_cuda.py count here as well.
"""

from __future__ import annotations

import os

import tests.parity.fake_cuda  # noqa: F401 - before CuPy
from tests.parity.played import environment

os.environ.update(environment())  # the workers of pytest-xdist inherit it, too
