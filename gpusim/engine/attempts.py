"""One or more attempts to migrate a VM in one QEMU process, and the process after the last attempt.

An attempt leaves state in the process (gpusim.qemu.process), which changes the next attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from gpusim.config.backend import Backend, choose_backend
from gpusim.config.checks import reject
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.audit import check_in_tests
from gpusim.engine.migration import Migration
from gpusim.engine.reasons import reason_text
from gpusim.engine.records import Attempt, Event, Observer, Result
from gpusim.qemu.process import Process
from gpusim.text import Message
from gpusim.units import NS_PER_S

# Verdicts after which QEMU can migrate again. If a run ends before the migration does, then the
# migration counts as failed, as after an error of the link.
FAILED = ("cancelled", "not_converged", "time_limit")
AFTERWARDS_NS = 60 * NS_PER_S  # how long to watch the process after the last attempt


def simulate(config: Config, *, observe: Observer | None = None) -> Result:
    """Simulate one live migration, or the attempts of one QEMU process until one converges.

    Args:
        config: what to simulate.
        observe: is called with the progress, at most every 0.1 s of the wall clock.

    Returns:
        The summary, syncs, events and timeline samples of the last attempt, and the attempts before
        it. `syncs` and `events` depend on config and seed alone.

    Raises:
        ConfigError: a value cannot be simulated. gpusim raises this before it allocates a bitmap.
        RuleError: a user's rule raises or breaks its contract. `__cause__` is what it raised.
        MemoryError: the bitmaps do not fit into memory.
    """
    if getattr(config, "evacuation", None) is not None:  # `resolve` checks every type
        hint = "is not one migration. Call gpusim.evacuate, or set evacuation to null"
        reject("evacuation", "...", hint, "not_supported")
    scenario = resolve(config)
    return simulate_scenario(scenario, choose_backend(scenario), observe=observe)


def simulate_scenario(
    scenario: Scenario, backend: Backend, *, observe: Observer | None = None
) -> Result:
    """Simulate a checked scenario and its earlier attempts, as `simulate` does.

    Args:
        scenario: the last attempt.
        backend: where the bitmaps of every attempt live.
        observe: see `simulate`.

    Raises:
        MemoryError: the bitmaps do not fit into memory.
    """
    return run_attempts(
        scenario, lambda own, process: Migration(own, backend, process=process, observe=observe)
    )


def run_attempts(
    scenario: Scenario, make_migration: Callable[[Scenario, Process], Migration]
) -> Result:
    """Run a scenario and its earlier attempts, each as a migration that `make_migration` makes."""
    process, before = Process(), list[Attempt]()
    for number, own in enumerate(scenario.attempts, start=1):
        with closing(make_migration(own, process)) as migration:
            result = migration.run()
        later = scenario.attempts[number:]
        idle_ns, following = (later[0].after_ns, later[0]) if later else (AFTERWARDS_NS, own)
        auto_converge = following.migration.auto_converge and not own.resets_capabilities
        if result.summary.verdict in (FAILED if later else ("cancelled",)):
            result = _leave_idle(migration, result, idle_ns, auto_converge)
        result = replace(result, summary=replace(result.summary, attempt=number), before=before)
        if not later or result.summary.verdict not in FAILED:
            break
        before = [*before, Attempt(config=own.config, result=replace(result, before=[]))]
    check_in_tests(result)
    return result


def _leave_idle(migration: Migration, result: Result, idle_ns: int, auto_converge: bool) -> Result:
    """Let the process run without a migration. A sync timer that is still armed may abort it."""
    process, rule = migration.state.process, migration.fallback_timer.rule
    aborts_ns = process.idle(rule, idle_ns, auto_converge)
    if aborts_ns is None:
        return result
    later_s = aborts_ns / NS_PER_S
    reason = Message(
        "aborted_by_leftover_timer", {"cancelled": migration.reason, "later_s": later_s}
    )
    at_s = (migration.state.clock.now_ns + aborts_ns) / NS_PER_S
    return replace(
        result,
        summary=replace(
            result.summary, verdict="aborted", reason=reason_text(reason), reason_code=reason.code
        ),
        events=[*result.events, Event(time_s=at_s, event="abort", arguments={})],
    )
