"""A signal that ends a coroutine: the coroutine is cancelled, and cleans up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from gpusim.command import ENDING, Interrupted, end_at_next_signal, interrupt

T = TypeVar("T")


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine. The first signal cancels it, so that it can clean up. The second acts at once.

    Raises:
        Interrupted: a signal came, and the coroutine has ended.
    """

    async def run() -> T:
        task, received = asyncio.ensure_future(work), list[int]()
        loop = asyncio.get_running_loop()
        ours = [number for number in ENDING if signal.getsignal(number) == interrupt]

        def stop(number: int, _: FrameType | None) -> None:
            end_at_next_signal(number)
            received.append(number)
            loop.call_soon_threadsafe(task.cancel)  # it wakes the loop, too

        for number in ours:
            signal.signal(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if received:
                raise Interrupted(received[0]) from None
            raise
        finally:
            if not received:
                for number in ours:
                    signal.signal(number, interrupt)

    return asyncio.run(run())
