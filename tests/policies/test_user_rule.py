"""Does whatever a user's class returns or raises become one line with its class, file and line?"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpusim import ConfigError, simulate, simulate_many
from gpusim.config.scenario import resolve
from gpusim.policies import Orders
from gpusim.qemu.rules import RuleError
from tests.policies import hostile_rules
from tests.policies.hostile_rules import ERRORS, VALUES
from tests.policies.test_plug_ins import HERE, with_policies
from tests.policies.test_runs import busy

HOSTILE = "tests.policies.hostile_rules"
CLASSES = {
    "throttle_rule": (hostile_rules.Throttle, ("on_sync", "on_period"), ("percent", "dirty_rate_high_cnt", "exhausted")),
    "sync_timer_rule": (hostile_rules.Timer, ("start", "wants_sync", "stop", "after_tick"), ("tick_ns", "state", "starts_with_period", "stops_under_lock", "needs_auto_converge")),
    "switchover_rule": (hostile_rules.Switchover, ("wants_sync", "ready", "acts"), ()),
    "bandwidth_rule": (hostile_rules.Bandwidth, ("end_windows",), ()),
    "manager": (hostile_rules.Manager, ("look",), ()),
}  # fmt: skip
IGNORED = ("stop", "after_tick")  # whatever they return
CASES = [
    (policy, member, wrong)
    for policy, (_, methods, attributes) in CLASSES.items()
    for member in (*methods, *attributes)
    for wrong in ERRORS | VALUES
    if not (member in attributes and wrong == "coroutine")  # Python warns of those it drops
    if not (member == "state" and wrong in VALUES)  # only the rule itself reads it
]
NUMBERS = {
    "percent": {"2"},
    "dirty_rate_high_cnt": {"0", "2"},
    "end_windows": {"0", "2", "0.5"},
}
ALLOWED = {
    (policy, member, wrong)
    for policy, member, wrong in CASES
    if (member in IGNORED and wrong in VALUES and wrong != "coroutine")
    or wrong in NUMBERS.get(member, ())
}


def broken(policy: str, member: str, wrong: str) -> RuleError | ConfigError | None:
    """Return the error of a run of 15 s with a rule that does one thing wrong."""
    kind: Any = CLASSES[policy][0]
    kind.member, kind.wrong = member, wrong
    base = busy(limit_s=40, fallback_sync_interval="1s")
    try:
        simulate(with_policies(base, **{policy: f"{HOSTILE}:{kind.__name__}"}))
    except (RuleError, ConfigError) as error:
        return error
    finally:
        kind.member = ""
    return None


def check(error: RuleError | ConfigError | None, name: str, file: str) -> RuleError | ConfigError:
    """Check that an error is one bounded line that names the class and the file."""
    assert error is not None
    assert not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
    line = str(error)
    assert "\n" not in line and line.isprintable() and len(line) < 2500
    assert name in line and file in line
    assert str(pickle.loads(pickle.dumps(error))) == line
    return error


@pytest.mark.parametrize("policy", CLASSES)
def test_every_member_may_do_every_wrong_thing(policy: str) -> None:
    name = CLASSES[policy][0].__name__
    for case in CASES:
        if case[0] != policy:
            continue
        error = broken(*case)
        if case in ALLOWED:
            assert error is None, case
            continue
        found = check(error, f"{HOSTILE}:{name}", ".py:")  # an inherited method is gpusim's
        wanted = "rule_failed" if case[2] in ERRORS else "rule_answer"
        # `odd` raises when it is asked for its class
        codes = (wanted, "rule_failed") if case[2] == "odd" else (wanted,)
        if isinstance(found, RuleError):
            assert found.code in codes, case
            has_cause = found.code == "rule_failed" and case[2] != "KeyboardInterrupt"
            assert (found.__cause__ is not None) == has_cause
        else:  # an attribute that raises when the class is checked
            assert found.code == "wrong_arguments"


@pytest.mark.parametrize("field", ["set", "do", "why", "again_ns"])
def test_every_field_of_orders_may_be_anything(field: str) -> None:
    plain = {
        "set": ("list", {"odd"}), "do": ("None", set()), "why": ("text", set()), "again_ns": ("None", {"0", "2", "-1"}),
    }[field]  # fmt: skip
    for wrong in VALUES:
        hostile_rules.WrongOrders.field, hostile_rules.WrongOrders.wrong = field, wrong
        target = f"{HOSTILE}:WrongOrders"
        config = with_policies(busy(limit_s=0.05), manager=target)
        if wrong == plain[0] != "list" or (field == "again_ns" and wrong in plain[1]):
            simulate(config)
            continue
        with pytest.raises(RuleError) as caught:
            simulate(config)
        assert caught.value.code in ("rule_answer", *["rule_failed"] * (wrong == "odd")), wrong
        check(caught.value, target, "hostile_rules.py:")


@pytest.mark.parametrize(
    ("orders", "code", "text"),
    [
        ({"set": {"downtime_limit": -1}}, "rule_order", "set.downtime_limit = -1"),
        ({"set": {"downtime_limit": "1s"}}, "rule_order", "set.downtime_limit = 1s"),
        ({"set": {"downtime_limit": float("nan")}}, "rule_order", "set.downtime_limit = nan"),
        ({"set": {"downtime_limit": 10**30}}, "rule_order", "set.downtime_limit"),
        ({"set": {"downtime_limit": None}}, "rule_order", "set.downtime_limit"),
        ({"set": {"auto_converge": False}}, "rule_order", "set.auto_converge"),
        ({"set": {"downtime": 3}}, "rule_order", "set.downtime"),
        ({"set": {"manager": None}}, "rule_order", "set.manager"),
        ({"set": {3: 4}}, "rule_answer", "parameters and their values"),
        ({"do": "stop"}, "rule_answer", "pause, resume, cancel"),
        ({"do": ["pause"]}, "rule_answer", "pause, resume, cancel"),
        ({"why": b"x"}, "rule_answer", "a text"),
        ({"again_ns": 2.5e9}, "rule_answer", "2500000000.0"),
        ({"again_ns": True}, "rule_answer", "True"),
        ({"again_ns": 10**30}, "rule_answer", "10" + "0" * 16),
    ],
)
def test_an_order_that_cannot_be_done_fails_the_run(orders: Any, code: str, text: str) -> None:
    with pytest.raises(RuleError) as caught:
        simulate(with_policies(busy(), manager=(f"{HERE}:Wrong", {"orders": orders})))
    error = check(caught.value, f"{HERE}:Wrong", "user_rules.py:")
    assert error.code == code and text in str(error)


def test_a_poll_in_the_past_counts_as_now() -> None:
    """gpusim then polls 1 ms later."""
    for again_ns in (0, -(10**30)):
        eager = with_policies(
            busy(limit_s=0.1), manager=(f"{HERE}:Wrong", {"orders": {"again_ns": again_ns}})
        )
        assert simulate(eager).summary.verdict == "time_limit"


def test_a_long_reason_is_cut() -> None:
    orders = {"do": "cancel", "why": "x\n" * 10**6}
    found = simulate(with_policies(busy(), manager=(f"{HERE}:Wrong", {"orders": orders})))
    assert found.summary.verdict == "cancelled" and len(found.summary.reason) < 500


@pytest.mark.parametrize("rule", ["AlwaysSyncs", "OnlyActs", "NeverActs"])
def test_a_rule_under_which_no_time_passes_is_stopped(rule: str) -> None:
    calm = busy(workload=hostile_rules.CALM)
    with pytest.raises(RuleError) as caught:
        simulate(with_policies(calm, switchover_rule=f"{HOSTILE}:{rule}"))
    assert check(caught.value, f"{HOSTILE}:{rule}", "hostile_rules.py:").code == "no_time_passes"


def test_an_error_says_where_it_was_raised_and_keeps_its_cause() -> None:
    with pytest.raises(RuleError) as caught:
        simulate(with_policies(busy(), throttle_rule=f"{HERE}:Raises"))
    assert isinstance(caught.value.__cause__, LookupError)
    assert "LookupError: no idea what to do" in str(caught.value)
    assert caught.value.data["place"].startswith("tests/policies/user_rules.py:")


@pytest.mark.parametrize("number", [1, 2])
def test_a_class_may_raise_anything_when_it_is_made(number: int) -> None:
    """The first instance checks the arguments. The second one is the migration's."""
    for wrong in ERRORS:
        hostile_rules.Made.wrong, hostile_rules.Made.number = wrong, number
        with pytest.raises((ConfigError, RuleError)) as caught:
            simulate(with_policies(busy(), manager=f"{HOSTILE}:Made"))
        error = check(caught.value, f"{HOSTILE}:Made", "hostile_rules.py:")
        assert error.code == ("wrong_arguments" if number == 1 else "rule_failed")


def test_a_real_interrupt_ends_the_run() -> None:
    """A signal arrives while the rule runs. The run must not take it for the rule's own error."""

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    config = with_policies(busy(), manager=f"{HOSTILE}:Interrupted")
    for one in (signal.default_int_handler, handler):
        before = signal.signal(signal.SIGINT, one)
        try:
            with pytest.raises(KeyboardInterrupt):
                simulate(config)
        finally:
            signal.signal(signal.SIGINT, before)


@pytest.fixture
def modules(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        if name.endswith("_module"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("exits", "raise SystemExit('bye')", "SystemExit: bye"),
        ("interrupts", "raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("bases", "class B(BaseException): pass\nraise B('x\\ny')", "B: x y"),
        ("broken", "x = 1\ndef f(:\n", "SyntaxError"),
        ("nul", "x = '\0'", "SyntaxError"),
        ("replaced", "import sys\nsys.modules[__name__] = 5", "no module"),
        ("imports", "import no_such_thing", "no_such_thing"),
        ("lazily", "def __getattr__(name): raise SystemExit(name)", "SystemExit: Mine"),
        ("moved", "__file__ = 3\nclass Mine: look = None", "TypeError"),
        ("unsigned", "class M(type):\n  def __call__(c, *a): raise GeneratorExit\nclass Mine(metaclass=M):\n  __signature__ = 3\n  look = print", "Mine"),
        ("hidden", "class M(type):\n  def __getattr__(c, n): raise SystemExit(n)\nclass Mine(metaclass=M): pass", "SystemExit: look"),
        ("latin", "# \xe9\nraise ValueError(chr(0xd800))", "ValueError"),
        ("odd", "class O:\n  @property\n  def __class__(self): raise SystemExit\no = O()\nclass Mine: look = print", "SystemExit"),
    ],
)  # fmt: skip
def test_a_module_may_do_anything_when_it_is_imported(
    name: str, source: str, text: str, modules: Any
) -> None:
    (modules / f"{name}_module.py").write_text(source + "\n", encoding="utf-8")
    target = f"{name}_module:Mine"
    with pytest.raises(ConfigError) as caught:
        resolve(with_policies(busy(), manager=target))
    error = check(caught.value, target, f"{name}_module")
    assert error.code in ("cannot_import", "wrong_arguments") and text in str(error)


@pytest.mark.slow
@pytest.mark.usefixtures("real_processes")
def test_a_worker_sends_the_error_back() -> None:
    configs = [
        with_policies(busy(), throttle_rule=f"{HERE}:Raises"),
        with_policies(busy(limit_s=1), manager=f"{HERE}:Onlooker"),
    ]
    failed, done = simulate_many(configs, workers=2)
    assert check(failed, f"{HERE}:Raises", "user_rules.py:").code == "rule_failed"  # type: ignore[arg-type]
    assert not isinstance(done, Exception)


def test_plain_numbers_of_numpy_are_accepted() -> None:
    found = simulate(with_policies(busy(limit_s=5), manager=f"{HOSTILE}:Numpy"))
    assert found.events and all(
        type(v) is not object for e in found.events for v in e.arguments.values()
    )
    assert Orders() == Orders(set={})
