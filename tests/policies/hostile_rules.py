"""Rules that do one wrong thing at one place: `wrong` says what, `member` says where.

A wrong thing is a value that the member returns, or an exception that it raises.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from gpusim import WriterConfig
from gpusim.policies import LastWindow, Orders, Shown, SwitchoverRule, SyncTimerRule, ThrottleRule


class HostileTextError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> NoReturn:
        raise KeyboardInterrupt


class Odd:
    """A value that answers every question with an exception."""

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:
        raise SystemExit("no class")

    def __getattr__(self, name: str) -> NoReturn:
        raise GeneratorExit(name)

    def __eq__(self, other: object) -> NoReturn:
        raise LookupError("no comparison")

    __hash__ = None  # type: ignore[assignment]
    __bool__ = __int__ = __index__ = __len__ = __iter__ = __repr__ = __eq__  # type: ignore[assignment]


class BaseOnly(BaseException):
    pass


def _raise(error: BaseException) -> NoReturn:
    raise error


async def _waits() -> Orders:
    return Orders()


def _recurse() -> Any:
    return _recurse()


ERRORS: dict[str, Callable[[], Any]] = {
    "LookupError": lambda: _raise(LookupError("line one\nline two \x1b[31m")),
    "LongText": lambda: _raise(ValueError("x" * 10**6)),
    "HostileText": lambda: _raise(HostileTextError()),
    "SystemExit": lambda: _raise(SystemExit(0)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "BaseOnly": lambda: _raise(BaseOnly("base")),
    "Group": lambda: _raise(BaseExceptionGroup("many", [SystemExit(3), ValueError()])),
    "MemoryError": lambda: bytearray(2**60),
    "RecursionError": _recurse,
    "AssertionError": lambda: _raise(AssertionError()),
}
VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "0": lambda: 0,
    "2": lambda: 2,
    "-1": lambda: -1,
    "huge": lambda: 10**5000,
    "0.5": lambda: 0.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "text": lambda: "yes\n\x1b[31m" * 1000,
    "list": list,
    "class": lambda: Orders,
    "odd": Odd,
    "coroutine": _waits,
    "generator": lambda: (n for n in range(3)),
}


class Wrongly:
    """Does the wrong thing in the members that `member` names."""

    member, wrong = "", "None"

    def __getattribute__(self, name: str) -> Any:
        kind = type.__getattribute__(object.__getattribute__(self, "__class__"), "__mro__")[0]
        if name != kind.member:
            return object.__getattribute__(self, name)
        make = (ERRORS | VALUES)[kind.wrong]
        static = kind.__mro__[1].__dict__.get(name) or getattr(kind, name, None)
        return (lambda *_: make()) if callable(static) else make()


class Throttle(Wrongly, ThrottleRule):
    dirty_rate_high_cnt = percent = 0

    def on_sync(self, sync: object) -> bool:
        self.percent = 20
        return True


class Timer(Wrongly, SyncTimerRule):
    pass


class Switchover(Wrongly, SwitchoverRule):
    pass


class Bandwidth(Wrongly, LastWindow):
    pass


class Manager(Wrongly):
    def look(self, shown: Shown) -> Orders:
        return Orders()


class WrongOrders:
    """Orders with one field that may be anything."""

    field, wrong = "set", "None"

    def look(self, shown: Shown) -> Orders:
        return Orders(**{type(self).field: (ERRORS | VALUES)[type(self).wrong]()})


CALM = WriterConfig(working_set="256MiB", page_writes_per_s=0)


class AlwaysSyncs(SwitchoverRule):
    """Syncs at every turn, and never stops the VM."""

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        return True

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        return False


class OnlyActs(AlwaysSyncs):
    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        return False

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        return True


class NeverActs(AlwaysSyncs):
    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        return False


class Made:
    """Raises when the instance with a given number is made."""

    wrong, number = "LookupError", 0

    def __init__(self) -> None:
        type(self).number -= 1
        if type(self).number == 0:
            ERRORS[self.wrong]()

    def look(self, shown: Shown) -> Orders:
        return Orders()


class Interrupted:
    """Gets a signal, and catches nothing."""

    def look(self, shown: Shown) -> Orders:
        signal.raise_signal(signal.SIGINT)
        return Orders()


class Numpy:
    """Orders with numbers of numpy."""

    def look(self, shown: Shown) -> Orders:
        return Orders(
            set={"downtime_limit": np.int64(400)},
            again_ns=np.int64(shown.time_ns + 10**9),
        )
