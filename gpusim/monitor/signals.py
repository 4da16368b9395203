"""A signal that ends a coroutine: the coroutine is cancelled, and cleans up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
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

        def stop(number: int) -> None:
            received.append(number)
            leave()
            end_at_next_signal(number)
            task.cancel()

        def leave() -> None:
            for one in ours:
                loop.remove_signal_handler(one)
                signal.signal(one, interrupt)

        for number in ours:
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted(received[0]) from None
        finally:
            if not received:
                leave()

    return asyncio.run(run())
