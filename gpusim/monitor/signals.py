"""Signals that end a command: one line of text, no partial file, and 128 + the signal as exit code.

A command that talks to QEMU imports little before its signal handlers are installed. So Ctrl-C
always ends in one line.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
T = TypeVar("T")


class Interrupted(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def interruptible(command: Callable[[], int], *, whole_process: bool) -> int:
    """Run a command that signals may end. Return its exit code, or 128 + the signal.

    Args:
        whole_process: whether the process ends with the command. Python's own exit then ignores
            further signals.
    """
    handlers = {
        number: signal.signal(number, _interrupt)
        for number in ENDING
        if signal.getsignal(number) != signal.SIG_IGN  # nohup asks for this
    }
    try:
        return command()
    except Interrupted as error:
        _ignore_signals()
        name = signal.Signals(error.number).name
        print(f"\nerror: {name}: stopped. No partial file was written", file=sys.stderr)
        return 128 + error.number
    finally:
        if whole_process:
            _ignore_signals()
        else:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine. The first signal cancels it, so that it can clean up.

    Raises:
        Interrupted: a signal came, and the coroutine has ended.
    """

    async def run() -> T:
        task, received = asyncio.ensure_future(work), list[int]()

        def stop(number: int) -> None:
            if not received:  # a second signal does not disturb the clean-up
                task.cancel()
            received.append(number)

        loop = asyncio.get_running_loop()
        # A connection that was cut leaves errors that nobody awaits. The command
        # reports the cut itself.
        loop.set_exception_handler(lambda loop, context: None)
        ours = [number for number in ENDING if signal.getsignal(number) == _interrupt]
        for number in ours:
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted(received[0]) from None
        finally:
            for number in ours:
                loop.remove_signal_handler(number)
                signal.signal(number, _interrupt)

    return asyncio.run(run())
