"""One wrapper around every command: exit codes, one line per error, signals, standard streams.

`run_command` turns what a command raises into a line and an exit code. `run_process` also prepares
the process, for a command that is the whole process. This module is imported before anything large,
so that a signal during those imports ends in one line too.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any, TextIO

from gpusim.errors import one_line
from gpusim.version import __version__

# Exit codes. EXIT_INTERNAL is EX_SOFTWARE of sysexits.h. A signal gives 128 + its number.
EXIT_FAILED, EXIT_INPUT, EXIT_INTERNAL = 1, 2, 70
TRACEBACK = "GPUSIM_TRACEBACK"  # environment variable: 1 prints the traceback of an error
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_AFTER_S = 0.01  # an interrupt that Python dropped is raised again
LOOK_MS = 200  # Python handles a signal that came just before a wait when the wait is over

_HINTS = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EROFS: "write elsewhere",
}
_command = SimpleNamespace(is_over=False, is_interrupted=False)  # of the whole process


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command. Return its exit code, after one line on standard error if it failed.

    Args:
        name: of the command.
        function: does the work and returns an exit code. None means 0.
    """
    try:
        code = function() or 0
    except BaseException as error:
        code = _report(name, error)
    return code


def run_process(name: str, function: Callable[[], int | None]) -> int:
    """Run a command that is the whole process. Return its exit code, for sys.exit.

    Standard streams that are missing become /dev/null. A closed pipe is quiet. Output that could
    not be written gives exit code 1. The first signal interrupts, and the second ends at once.

    Args:
        name: of the command.
        function: as for `run_command`. It imports what is large.
    """

    def interruptible() -> int:
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup asks for this
                signal.signal(number, interrupt)
        output = _prepare_streams()
        logging.raiseExceptions = False
        sys.unraisablehook, threading.excepthook = _report_unraisable, _report_in_thread
        code = run_command(name, function)
        sys.stdout.flush()  # a signal ends a wait for the reader of a pipe
        if output.error is not None:
            _print_error(f"standard output: {_reason(output.error)}")
            code = code or EXIT_FAILED
        sys.stderr.flush()
        _command.is_over = True
        return code

    code = run_command(name, interruptible)
    for number in ENDING:  # Python's own exit would let them kill a command that has succeeded
        signal.signal(number, signal.SIG_IGN)
    return code


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that an error is, or that led to it, or None."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if isinstance(one, KeyboardInterrupt):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            left += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                left += one.exceptions
    return None


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: interrupt the command. The next signal ends the process at once.

    Raises:
        Interrupted: the command is not over.
    """
    end_at_next_signal(number)
    if not _command.is_over:
        raise Interrupted(number)


def end_at_next_signal(number: int) -> None:
    """Let the next signal act by default, after a first signal `number`.

    A terminal that closes sends SIGHUP twice: the kernel does, and the shell. The second is ignored.
    """
    for other in ENDING:
        if signal.getsignal(other) != signal.SIG_IGN:
            is_repeated = other == number == signal.SIGHUP
            signal.signal(other, signal.SIG_IGN if is_repeated else signal.SIG_DFL)


def _report(name: str, error: BaseException) -> int:
    """Print an error as one line. Return the exit code."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        _print_error(one_line(error.code))
        return EXIT_FAILED
    found = interruption(error)
    _command.is_over, _command.is_interrupted = True, found is not None
    if os.environ.get(TRACEBACK) == "1":
        _print_traceback(error)
    if found is not None:
        number = getattr(found, "number", 0)
        notes = "".join(f". {note}" for note in getattr(found, "__notes__", ()))
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal shows ^C
        by = f" by {signal.Signals(number).name}" if number else ""
        _print_error(f"interrupted{by}{notes}")
        return 128 + int(number or signal.SIGINT)
    code, line = _describe(name, error)
    _print_error(line)
    return code


def _describe(name: str, error: BaseException) -> tuple[int, str]:
    from concurrent.futures import BrokenExecutor

    code = getattr(error, "exit_code", None)  # of the errors of gpusim/errors.py
    if isinstance(code, int):
        return code, one_line(error)
    if isinstance(error, OSError):
        return EXIT_FAILED, one_line(_reason(error))
    if isinstance(error, MemoryError):
        details = one_line(error) or "no details"
        return EXIT_FAILED, f"out of memory ({details}). Use a smaller VM, or fewer processes"
    if isinstance(error, BrokenExecutor):
        return EXIT_FAILED, (
            "a process was killed, which happens when memory runs out. Use a smaller VM, or fewer "
            "processes"
        )
    what = f"{type(error).__name__}: {one_line(error)}"
    hint = f"set {TRACEBACK}=1 to see where, and report it with {name} {__version__}"
    return EXIT_INTERNAL, f"internal error: {what} ({hint})"


def _reason(error: OSError) -> str:
    """Return what failed: the paths, the system's reason and a way out, as far as they are known."""
    parts = [error.filename, error.filename2, error.strerror or str(error) or type(error).__name__]
    text = ": ".join(
        os.fsdecode(part) for part in parts if isinstance(part, str | bytes | os.PathLike)
    )
    hint = _HINTS.get(error.errno or 0)
    return f"{text}. To continue, {hint}" if hint else text


def _print_error(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


class _Output(io.FileIO):
    """A standard stream that drops what cannot be written. The command goes on to its results.

    Attributes:
        error: why something was dropped. A closed pipe is none: nobody wants to read more.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, or drop them. Return how many.

        An interrupted command waits for no reader. Another program may have set O_NONBLOCK.
        """
        left = memoryview(data).cast("B")
        count = left.nbytes
        ready = select.poll()
        ready.register(self, select.POLLOUT)
        try:
            while left:
                if ready.poll(0 if _command.is_interrupted else LOOK_MS):
                    left = left[super().write(left[: select.PIPE_BUF]) or 0 :]  # does not block
                elif _command.is_interrupted:
                    break
        except BrokenPipeError:
            pass
        except OSError as error:
            self.error = error
        return count


def _prepare_streams() -> _Output:
    """Open what is missing, and let no stream interrupt the command. Return standard output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed before the start. A file of ours must not take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # nor one of a child
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    output, errors = _Output(1, "w", closefd=False), _Output(2, "w", closefd=False)
    sys.stdout = _text_stream(output, sys.stdout)
    sys.stderr = _text_stream(errors, sys.stderr, is_line_buffered=True)
    return output


def _text_stream(
    output: _Output, former: TextIO | None, *, is_line_buffered: bool = False
) -> TextIO:
    """Return a text stream with the properties of Python's own, which is None if it was closed."""
    if former is not None:
        former.flush()
    handling = getattr(former, "errors", "strict")
    is_unbuffered = bool(getattr(former, "write_through", False))  # python -u
    buffer: Any = output if is_unbuffered else io.BufferedWriter(output)
    return io.TextIOWrapper(
        buffer,
        encoding=getattr(former, "encoding", "utf-8"),
        errors="backslashreplace" if handling == "strict" else handling,  # names of any bytes
        line_buffering=is_line_buffered or bool(getattr(former, "line_buffering", False)),
        write_through=is_unbuffered,
    )


def _report_unraisable(found: Any) -> None:
    """Report an exception where Python cannot raise one: a destructor, a callback of a reference.

    An interrupt that came there is raised again, a little later.
    """
    lost = interruption(found.exc_value)
    if lost is not None:
        number = getattr(lost, "number", signal.SIGINT)
        signal.signal(signal.SIGALRM, lambda _, frame: interrupt(number, frame))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER_S)
    elif os.environ.get(TRACEBACK) == "1":
        sys.__unraisablehook__(found)
    else:
        _print_ignored(found.exc_type, found.exc_value)


def _report_in_thread(found: Any) -> None:
    if os.environ.get(TRACEBACK) == "1":
        threading.__excepthook__(found)
    elif not issubclass(found.exc_type, SystemExit):
        _print_ignored(found.exc_type, found.exc_value)


def _print_ignored(kind: type[BaseException], value: BaseException | None) -> None:
    if sys.stderr is not None:  # Python takes it away while it exits
        print(f"warning: ignored {kind.__name__}: {one_line(value or '')}", file=sys.stderr)
