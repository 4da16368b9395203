"""Gives a Python process and all its children the played CUDA device of fake_cuda.py.

Put this folder and the repository on PYTHONPATH. Python imports this module when it starts. The
device is made when CuPy is imported, so that other processes start as fast as before.
"""

import sys
from typing import Any


class _Finder:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "cupy":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            import tests.parity.fake_cuda  # noqa: F401


sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
