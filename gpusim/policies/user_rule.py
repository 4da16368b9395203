"""A user's class behind checks: whatever it returns or raises becomes plain values or a RuleError.

The engine asks these objects and never the user's class. Each kind offers what `gpusim.qemu.rules`
demands of a rule of that kind. An error names the class, the file and the line.
"""

from __future__ import annotations

import dis
import inspect
import math
import os
import signal
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CoroutineType
from typing import Any, TypeVar

import numpy as np

from gpusim.errors import LONGEST_VALUE, one_line
from gpusim.policies.names import rule_name
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import COMMANDS, Orders, RuleError, Shown, Windows
from gpusim.qemu.sync import Period, Sync
from gpusim.units import LONGEST_NS, NS_PER_MS, NS_PER_S

T = TypeVar("T")
PACKAGE = str(Path(__file__).parents[1])
LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
FOREIGN = tuple(f"{folder}{os.sep}" for folder in (*LIBRARIES, PACKAGE))
HANDLER = str(Path(PACKAGE) / "command.py")  # has gpusim's handler of signals
LONGEST_WHY = 300  # characters of a manager's reason
LARGEST_COUNT = 2**63 - 1  # of a number that a rule returns
MOST_BANDWIDTH = 1e18  # bytes per second
ROUNDING = 1e-6  # a share of a bandwidth, because a window's bytes and ns are whole numbers


class WrongAnswerError(Exception):
    """A value of the user's that the contract does not allow."""

    def __init__(self, value: object, allowed: str, field: str = "") -> None:
        super().__init__(allowed)
        if type(value) is CoroutineType:  # of an `async def`, and nobody awaits it
            value.close()
        self.value, self.allowed, self.field = value, allowed, field


class UserRule:
    """One instance of a user's class, and every way to use it.

    Args:
        target: the class, as the config names it.
        make: makes the instance.

    Raises:
        RuleError: `make` fails.
    """

    def __init__(self, target: str, make: Callable[[], Any]) -> None:
        self.target, self.name = target, rule_name(target)
        self._made: Any = None
        self._made = self._ask("__init__", make, lambda made: made)

    def call(self, method: str, parse: Callable[[Any], T], *given: object) -> T:
        """Call a method and return its parsed answer.

        Raises:
            RuleError: the method raises, or `parse` refuses the answer.
        """
        return self._ask(method, lambda: getattr(self._made, method)(*given), parse)

    def read(self, attribute: str, parse: Callable[[Any], T]) -> T:
        """Return a parsed attribute.

        Raises:
            RuleError: it cannot be read, or `parse` refuses it.
        """
        return self._ask(attribute, lambda: getattr(self._made, attribute), parse)

    def write(self, attribute: str, value: object) -> None:
        """Set an attribute.

        Raises:
            RuleError: it cannot be set.
        """
        self._ask(attribute, lambda: setattr(self._made, attribute, value), parse_nothing)

    def refuse(self, member: str, value: object, allowed: str, field: str = "") -> RuleError:
        """Return the error of an answer that the contract does not allow."""
        return RuleError(
            "rule_answer",
            rule=self.target,
            member=f"{member}: {field}" if field else member,
            value=describe(value),
            allowed=allowed,
            place=self.place_of(member),
        )

    def _ask(self, member: str, ask: Callable[[], Any], parse: Callable[[Any], T]) -> T:
        try:
            return parse(ask())
        except WrongAnswerError as wrong:
            raise self.refuse(member, wrong.value, wrong.allowed, wrong.field) from None
        except BaseException as error:
            if is_signal(error):
                raise
            place = raised_at(error) or self.place_of(member)
            data = {"rule": self.target, "member": member, "reason": reason_of(error)}
            failure, cause = RuleError("rule_failed", **data, place=place), cause_of(error)
        raise failure from cause

    def place_of(self, member: str) -> str:
        """Return the file and line of a method or property, or of the class."""
        kind = type(self._made)
        try:
            member_of_class = inspect.getattr_static(kind, member, None)
            found = getattr(member_of_class, "fget", member_of_class)
            code = getattr(inspect.unwrap(found), "__code__", None)
            if code is not None:
                return _place(code.co_filename, code.co_firstlineno)
            return _place(inspect.getfile(kind), inspect.getsourcelines(kind)[1])
        except Exception:  # the class was made without a file
            return "no file"


class UserThrottle:
    """A user's throttle rule. See `gpusim.qemu.rules.ThrottlePolicy`."""

    def __init__(self, rule: UserRule) -> None:
        self._rule = rule

    @property
    def parameters(self) -> Parameters:
        """The migration parameters that the rule has."""
        found: Parameters = self._rule.read("parameters", lambda value: value)
        return found

    @parameters.setter
    def parameters(self, parameters: Parameters) -> None:
        self._rule.write("parameters", parameters)

    @property
    def percent(self) -> int:
        """The throttle that the rule wants, 1 to 99 percent."""
        return self._rule.read("percent", parse_percent)

    @property
    def dirty_rate_high_cnt(self) -> int:
        """The rule's count for syncs.csv."""
        return self._rule.read("dirty_rate_high_cnt", parse_count)

    @property
    def exhausted(self) -> bool:
        """Whether the throttle cannot rise any more."""
        return self._rule.read("exhausted", parse_flag)

    def on_sync(self, sync: Sync) -> bool:
        """Return whether a sync sets the throttle."""
        return self._rule.call("on_sync", parse_flag, sync)

    def on_period(self, period: Period) -> bool:
        """Return whether a period sets the throttle."""
        return self._rule.call("on_period", parse_flag, period)


class UserSyncTimer:
    """A user's timer rule. See `gpusim.qemu.rules.SyncTimerPolicy`."""

    percent = 0  # no rule of a user reads it
    starts_after_setup = False

    def __init__(self, rule: UserRule) -> None:
        self._rule = rule
        for flag in ("starts_with_period", "stops_under_lock", "needs_auto_converge"):
            rule.read(flag, parse_flag)  # most runs never come to stops_under_lock

    @property
    def tick_ns(self) -> int:
        """The time from the end of a tick to the next tick."""
        return self._rule.read("tick_ns", parse_tick_ns)

    @property
    def state(self) -> Any:
        """What the next migration in the process gets."""
        return self._rule.read("state", lambda value: value)

    @property
    def starts_with_period(self) -> bool:
        """Whether the timer starts when a period closes."""
        return self._rule.read("starts_with_period", parse_flag)

    @property
    def stops_under_lock(self) -> bool:
        """Whether a stop waits for a tick that runs."""
        return self._rule.read("stops_under_lock", parse_flag)

    @property
    def needs_auto_converge(self) -> bool:
        """Whether a tick without auto-converge does not arm the next tick."""
        return self._rule.read("needs_auto_converge", parse_flag)

    @property
    def syncs_from_count(self) -> int:
        """The first dirty_sync_count at which a tick syncs."""
        return self._rule.read("syncs_from_count", parse_count)

    def start(self) -> bool:
        """Return whether to arm the timer."""
        return self._rule.call("start", parse_flag)

    def stop(self) -> None:
        """Stop after the migration has ended."""
        self._rule.call("stop", parse_nothing)

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Return whether a tick forces a sync."""
        return self._rule.call("wants_sync", parse_flag, dirty_sync_count, period_ns)

    def after_tick(self, dirty_sync_count: int) -> None:
        """End a tick."""
        self._rule.call("after_tick", parse_nothing, dirty_sync_count)


class UserSwitchover:
    """A user's switchover rule. See `gpusim.qemu.rules.SwitchoverPolicy`."""

    def __init__(self, rule: UserRule) -> None:
        self._rule = rule

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether to sync."""
        return self._rule.call("wants_sync", parse_flag, estimate_bytes, threshold_bytes)

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether to stop the VM."""
        return self._rule.call("ready", parse_flag, pending_bytes, threshold_bytes)

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether a turn may sync or stop the VM."""
        return self._rule.call("acts", parse_flag, estimate_bytes, threshold_bytes)

    def refuse_turns(self, now_ns: int, pending_bytes: int) -> RuleError:
        """Return the error of a rule under which the main loop turns for ever at one time."""
        data = {"time_s": now_ns / NS_PER_S, "pending_bytes": pending_bytes}
        return RuleError(
            "no_time_passes", rule=self._rule.target, place=self._rule.place_of("ready"), **data
        )


class UserBandwidth:
    """A user's rule for the bandwidth. See `gpusim.qemu.rules.BandwidthPolicy`."""

    def __init__(self, rule: UserRule) -> None:
        self._rule, self._before = rule, 0.0

    def end_windows(self, windows: Windows) -> float:
        """Return the expected bandwidth."""
        most = math.inf
        if windows.count > 1:  # the sender has gone by this bound
            most = max(self._before, windows.bandwidth) * (1 + ROUNDING)

        def parse(value: object) -> float:
            return parse_bandwidth(value, most)

        self._before = self._rule.call("end_windows", parse, windows)
        return self._before


class UserManager:
    """A user's manager. See `gpusim.qemu.rules.Manager`.

    Attributes:
        name: of the class, for people.
    """

    def __init__(self, rule: UserRule) -> None:
        self._rule, self.name = rule, rule.name

    def look(self, shown: Shown) -> Orders:
        """Return the orders of one poll, with plain values. QEMU may refuse a parameter."""
        return self._rule.call("look", parse_orders, shown)

    def refuse_orders(self, problem: str) -> RuleError:
        """Return the error of orders that QEMU refuses."""
        data = {"rule": self._rule.target, "problem": problem}
        return RuleError("rule_order", **data, place=self._rule.place_of("look"))


KINDS: dict[str, Callable[[UserRule], Any]] = {  # by the key in `migration`
    "throttle_rule": UserThrottle,
    "sync_timer_rule": UserSyncTimer,
    "switchover_rule": UserSwitchover,
    "bandwidth_rule": UserBandwidth,
    "manager": UserManager,
}


def parse_nothing(value: object) -> None:
    """Ignore a result that nobody reads."""
    if type(value) is CoroutineType:
        raise WrongAnswerError(value, "a plain method. gpusim awaits nothing")


def parse_flag(value: object) -> bool:
    """Return True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise WrongAnswerError(value, "True or False. None is what a method without return gives")


def parse_percent(value: object) -> int:
    """Return a throttle in percent."""
    hint = "Assign self.percent before on_sync or on_period returns True"
    return _whole(value, 1, 99, f"a whole number from 1 to 99. {hint}")


def parse_count(value: object) -> int:
    """Return a count."""
    return _whole(value, 0, LARGEST_COUNT, f"a whole number from 0 to {LARGEST_COUNT}")


def parse_bandwidth(value: object, most: float) -> float:
    """Return a bandwidth in bytes per second, at most `most`."""
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if is_number and not isinstance(value, bool) and 0 <= value <= min(most, MOST_BANDWIDTH):  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    hint = "Equal windows must not raise it above the larger of itself and their bandwidth"
    raise WrongAnswerError(value, f"a number from 0 to {min(most, MOST_BANDWIDTH):g}. {hint}")


def parse_tick_ns(value: object) -> int:
    """Return the time between two ticks."""
    allowed = f"a whole number of ns from {NS_PER_MS} (1 ms) to {LONGEST_NS}"
    hint = "For example: self.tick_ns = 5_000_000_000"
    return _whole(value, NS_PER_MS, LONGEST_NS, f"{allowed}. {hint}")


def parse_orders(value: object) -> Orders:
    """Return orders with plain values, which need not be values that QEMU takes."""
    if not isinstance(value, Orders):
        hint = "To order nothing, end look with: return Orders()"
        raise WrongAnswerError(value, f"Orders. {hint}")
    settings, do, why, again_ns = value.set, value.do, value.why, value.again_ns
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        allowed = 'parameters and their values, such as {"downtime_limit": 600}'
        raise WrongAnswerError(settings, allowed, "set")
    if do is not None and not (isinstance(do, str) and do in COMMANDS):
        raise WrongAnswerError(do, f"one of {', '.join(COMMANDS)}, or None", "do")
    if not isinstance(why, str):
        raise WrongAnswerError(why, "a text", "why")
    if again_ns is not None:
        hint = "For example: again_ns=shown.time_ns + 1_000_000_000"
        allowed = f"None, or a whole number of ns up to {LONGEST_NS}. {hint}"
        again_ns = _whole(again_ns, None, LONGEST_NS, allowed, "again_ns")
    return Orders(
        set={str(name): settings[name] for name in settings},
        do=None if do is None else COMMANDS[COMMANDS.index(do)],
        why=one_line(why, LONGEST_WHY),
        again_ns=again_ns,
    )


def _whole(value: object, low: int | None, high: int, allowed: str, field: str = "") -> int:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        number = int(value)
        if (low is None or low <= number) and number <= high:
            return number
    raise WrongAnswerError(value, allowed, field)


def describe(value: object) -> str:
    """Return a value of the user's for people. Only plain values are shown."""
    kind = type(value)
    if value is None or kind in (bool, float, str) or (kind is int and abs(value) < 10**40):  # type: ignore[arg-type]
        return repr(value)
    return _silent(lambda: f"a value of type {kind.__name__}", "a value of another type")


def reason_of(error: BaseException) -> str:
    """Return an error of the user's on one line."""
    text = _silent(lambda: one_line(str(error), 2 * LONGEST_VALUE), "")
    name = type.__dict__["__name__"].__get__(type(error))
    return f"{name}: {text}" if text else name


def _silent(make: Callable[[], str], instead: str) -> str:
    """Return a text that the user's code helps to make, or another text if that fails."""
    try:
        return make()
    except BaseException as error:
        if is_signal(error):
            raise
        return instead


def cause_of(error: BaseException) -> BaseException | None:
    """Return the cause for the error that is made of a user's error.

    A KeyboardInterrupt is none: whoever finds one in a chain takes it for a signal.
    """
    return None if isinstance(error, KeyboardInterrupt) else error


def is_signal(error: BaseException) -> bool:
    """Tell whether a signal raised a KeyboardInterrupt, and not a `raise` in the user's code.

    Python calls a handler between two instructions: gpusim's own, or another one that is known.
    Without a handler in Python the interrupt appears at an instruction that is no `raise`.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    codes = [getattr(handler, "__code__", None) for handler in handlers]
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in codes or code.co_filename == HANDLER:
            return True
        if trace.tb_next is None:
            return code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]
        trace = trace.tb_next
    return True


def raised_at(error: BaseException) -> str:
    """Return the user's file and line that raised an error. Empty: no file is known."""
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        return _place(error.filename, error.lineno or 1)
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename not in _OWN
        and not frame.f_code.co_filename.startswith("<frozen")
    ]
    own = [one for one in frames if not one[0].startswith((*FOREIGN, "<"))]
    return _place(*(own or frames)[-1]) if frames else ""


def _place(file: str, line: int) -> str:
    """Return a file and a line, from the current folder on if the file lies in it."""
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the folder is gone
        here = os.sep
    return f"{file.removeprefix(here)}:{line}"


_OWN = {__file__, str(Path(PACKAGE) / "config" / "plugins.py")}
