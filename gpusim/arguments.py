"""The parser of every command line but Hydra's. A mistake becomes an error of one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from gpusim.errors import UsageError
from gpusim.version import __version__


class Parser(argparse.ArgumentParser):
    """A parser with `--version` that raises its errors, so that `run_command` shows them."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError("usage", message=message, command=self.prog)
