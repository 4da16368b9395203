"""The entry points of all commands: what they share before and around their own `main`.

Owns `--version`, and that a closed pipe (`| head`) is quiet. It imports a command only to run it.
"""

from __future__ import annotations

import io
import sys
from functools import partial
from importlib import import_module
from typing import TextIO

from gpusim.version import __version__

MODULES = {
    "gpusim": "gpusim.cli.app",
    "gpusim-collect": "gpusim.cli.collect",
    "gpusim-validate": "gpusim.cli.validate",
    "gpusim-record": "gpusim.cli.record",
    "gpusim-predict": "gpusim.cli.predict",
    "gpusim-bench": "gpusim.bench.cli",
}


class _QuietFile(io.FileIO):
    """A file that drops what nobody reads any more. The command goes on and writes its results."""

    def write(self, data: object) -> int:
        """Write bytes, or drop them if the reader has closed the pipe."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def _ignore_closed_pipe(stream: TextIO | None) -> TextIO | None:
    """Return a stream to the same file that no closed pipe interrupts.

    Python has no stream if its file was closed before the start (`>&-`).
    """
    if stream is None:
        return stream
    stream.flush()
    unbuffered = bool(getattr(stream, "write_through", False))  # python -u
    return io.TextIOWrapper(
        io.BufferedWriter(_QuietFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=bool(stream.line_buffering) or stream is sys.stderr,
        write_through=unbuffered,
    )


def run(command: str) -> int | None:
    """Run a command and return its exit code. None means 0.

    Python ignores SIGPIPE, and a socket or a worker process that is gone must not end gpusim.
    Only the two standard streams may be closed early.
    """
    for name in ("stdout", "stderr"):
        setattr(sys, name, _ignore_closed_pipe(getattr(sys, name)))
    if "--version" in sys.argv[1:]:  # before Hydra, which would print its own version
        print(f"{command} {__version__}")
        return 0
    code: int | None = import_module(MODULES[command]).main()
    return code


gpusim = partial(run, "gpusim")
collect = partial(run, "gpusim-collect")
validate = partial(run, "gpusim-validate")
record = partial(run, "gpusim-record")
predict = partial(run, "gpusim-predict")
bench = partial(run, "gpusim-bench")
