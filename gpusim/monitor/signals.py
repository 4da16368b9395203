"""Signals that ask a command to end: one line, nothing half-written, 128 + their number as exit code.

A command that talks to QEMU imports little before its handlers stand, so that Ctrl-C always ends in a line.
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
    """Run a command so that signals end it in one line; returns its exit code, or 128 + the signal.

    Args:
        whole_process: the process ends with the command, and Python's own end wants to be left alone.
    """
    kept = {
        number: signal.signal(number, _interrupt)
        for number in ENDING
        if signal.getsignal(number) != signal.SIG_IGN  # nohup's wish
    }
    try:
        return command()
    except Interrupted as error:
        _be_deaf()
        name = signal.Signals(error.number).name
        print(f"\nerror: {name}: stopped; what was not whole was not written", file=sys.stderr)
        return 128 + error.number
    finally:
        if whole_process:
            _be_deaf()
        else:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _be_deaf() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def ended_by_signals(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; the first signal that asks to end cancels it, so that it cleans up.

    Raises:
        Interrupted: a signal did, and the work has ended.
    """

    async def watched() -> T:
        task, asked = asyncio.ensure_future(work), list[int]()

        def stop(number: int) -> None:
            if not asked:  # a second one does not disturb the cleaning up
                task.cancel()
            asked.append(number)

        loop = asyncio.get_running_loop()
        # A connection that was cut short leaves errors nobody waits for; the line about it is ours.
        loop.set_exception_handler(lambda loop, context: None)
        ours = [number for number in ENDING if signal.getsignal(number) == _interrupt]
        for number in ours:
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted(asked[0]) from None
        finally:
            for number in ours:
                loop.remove_signal_handler(number)
                signal.signal(number, _interrupt)

    return asyncio.run(watched())
