"""The guests of a host: one checked migration for each, and the orders in which they can start."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.backend import Backend, choose_backend
from gpusim.config.checks import check_choice, check_whole, reject
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config, EvacuationConfig, GuestConfig
from gpusim.engine.records import Result
from gpusim.errors import ConfigError
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime
from gpusim.sender.link import Link
from gpusim.text import Message
from gpusim.units import NS_PER_S

MOST_GUESTS = 1000


@dataclass(kw_only=True)
class Vm:
    """A guest, and what is known of its migration so far.

    Attributes:
        name: unique on the host.
        config: of its migration alone, over the whole link.
        backend: where its bitmaps live.
        start_ns, end_ns: since the evacuation started. None: not yet.
        link: the share of the link in the latest simulation of it.
        result, reason: of the latest simulation, which may have stopped before the end.
        known_to_ns: how far it has been simulated, since the evacuation started.
        has_ended: it ended at `known_to_ns`, unless the shares of the link change before.
        runs: how often it was simulated.
    """

    name: str
    config: Config
    scenario: Scenario
    backend: Backend
    start_ns: int | None = None
    end_ns: int | None = None
    link: Link | None = None
    result: Result | None = None
    reason: Message | None = None
    known_to_ns: int = 0
    has_ended: bool = False
    runs: int = 0

    @property
    def remaining_bytes(self) -> int:
        """Memory that remains to be sent, as far as the guest has been simulated."""
        return (
            self.scenario.vm_bytes if self.result is None else self.result.summary.remaining_bytes
        )


def expected_dirty_pages(scenario: Scenario) -> float:
    """Return how many pages a guest is expected to dirty in its first second, if all were clean.

    Source: QEMU's calc-dirty-rate (migration/dirtyrate.c), which measures this on a live guest.
    """
    writes = Guest(scenario.layout, scenario.writers, RunTime()).writes(0, NS_PER_S)
    drawn = (writes.last - writes.first) * -np.expm1(-writes.mean)
    return float(drawn.sum() + (writes.certain_last - writes.certain_first).sum())


ORDERS: dict[str, Callable[[Vm], float]] = {
    "as_listed": lambda vm: 0.0,
    "smallest_first": lambda vm: vm.scenario.vm_bytes,
    "largest_first": lambda vm: -vm.scenario.vm_bytes,
    "calmest_first": lambda vm: expected_dirty_pages(vm.scenario),
    "busiest_first": lambda vm: -expected_dirty_pages(vm.scenario),
}


def make_vms(config: Config, evacuation: EvacuationConfig) -> list[Vm]:
    """Return the guests of a host in the order in which they start, all checked.

    Raises:
        ConfigError: a value cannot be simulated.
    """
    check_choice("evacuation.order", evacuation.order, ORDERS)
    vms = []
    for index, (name, key, guest) in enumerate(_list_guests(evacuation)):
        alone = replace(
            config, vm=guest.vm, workload=guest.workload, evacuation=None, seed=config.seed + index
        )
        try:
            scenario = resolve(alone)
            backend = choose_backend(scenario)
        except ConfigError as error:
            raise _with_guest_key(error, key) from None
        vms.append(Vm(name=name, config=alone, scenario=scenario, backend=backend))
    return sorted(vms, key=ORDERS[evacuation.order])


def _list_guests(evacuation: EvacuationConfig) -> list[tuple[str, str, GuestConfig]]:
    """Return name, config key and config of each guest, as listed and with counts expanded."""
    guests: list[tuple[str, str, GuestConfig]] = []
    for name, guest in evacuation.guests.items():
        key = f"evacuation.guests.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}", str(name)):
            allowed = "a name becomes a folder, so it may have letters, digits, _ . and -"
            reject("evacuation.guests", name, allowed, "wrong_format")
        check_whole(f"{key}.count", guest.count, 1, MOST_GUESTS)
        numbered = [f"{name}-{number}" for number in range(1, guest.count + 1)]
        guests += [(one, key, guest) for one in (numbered if guest.count > 1 else [str(name)])]
    if not guests:
        hint = "a host needs a guest or more. See conf/experiment/evacuate.yaml"
        reject("evacuation.guests", "{}", hint, "missing")
    names = [name for name, _, _ in guests]
    if len(names) > MOST_GUESTS:
        reject(
            "evacuation.guests", f"{len(names)} guests", f"at most {MOST_GUESTS}", "out_of_range"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        hint = "two guests have this name. A guest with a count is named NAME-1, NAME-2 and so on"
        reject("evacuation.guests", twice, hint, "contradiction")
    return guests


def _with_guest_key(error: ConfigError, key: str) -> ConfigError:
    """Return the error of one guest, with its keys as they are in the evacuation."""
    if not error.key.startswith(("vm.", "workload.")):
        return error
    message = f"{error.message} (vm and workload are those of {key})"
    return ConfigError(f"{key}.{error.key}", error.value, message, error.code)
