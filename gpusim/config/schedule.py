"""The schedule: actions of the management on a migration while it runs.

Owns the checks of `schedule` and of a manager's orders, and makes actions of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gpusim.config.checks import check_choice, check_whole, parse_value, reject, reject_key
from gpusim.config.migration import change_migration, parse_parameters
from gpusim.config.plugins import KINDS
from gpusim.config.schema import MigrationConfig
from gpusim.errors import ConfigError
from gpusim.qemu.rules import COMMANDS, Orders
from gpusim.units import LONGEST_NS, MOST_COUNT, NS_PER_S, parse_ns

EXAMPLE = '{at: "60s", do: cancel}, {at_sync: 5, set: {downtime_limit: 1000}}'
# A capability cannot change while QEMU migrates (migration/options.c:migrate_caps_check), and QEMU
# does not know the others. The rest is what query-migrate-parameters lists.
_FIXED = (
    "version",
    "auto_converge",
    "fallback_sync_interval",
    "postcopy_ram",
    "postcopy_preempt",
    "start_postcopy",
    "multifd_channels",
    *KINDS,
)
SETTABLE = tuple(f.name for f in fields(MigrationConfig) if f.name not in _FIXED)
SCHEDULED = (*COMMANDS, "lose-link")  # no manager orders the loss of the link
ENTRY_KEYS = ("at", "at_sync", "do", "set")
FIELDS = {"downtime_limit": "downtime_limit_ms"}  # names that differ in Parameters


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action of the management.

    Attributes:
        at_ns: time of the action. None: it happens when QEMU's dirty-sync-count is `at_sync`.
        at_sync: the count. None: it happens at `at_ns`.
        do: set, or one of SCHEDULED.
        changes: for set: new values by the names of `Parameters`.
        settings: for set: the same as the user wrote it.
    """

    at_ns: int | None
    at_sync: int | None
    do: str
    changes: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The action for people, such as "at 60 s: cancel"."""
        when = f"at_sync {self.at_sync}"
        if self.at_ns is not None:
            when = f"at {self.at_ns / NS_PER_S:g} s"
        settings = f" {dict(self.settings)}" if self.settings else ""
        return f"{when}: {self.do}{settings}"


def parse_schedule(key: str, schedule: list[Any], migration: MigrationConfig) -> tuple[Action, ...]:
    """Return the actions of a schedule: first those by time, then those by sync, both in order.

    Args:
        key: of the schedule in the config.
        schedule: as the config has it.
        migration: the settings before the first action. Each new value is checked together with
            the values that earlier entries of the same kind set.

    Raises:
        ConfigError: an entry is not usable.
    """
    entries = []
    for number, entry in enumerate(schedule):
        own = f"{key}[{number}]"
        entries.append((own, _parse_entry(own, entry)))
    timed = sorted((a.at_ns, n) for n, (_, a) in enumerate(entries) if a.at_ns is not None)
    by_sync = sorted((a.at_sync, n) for n, (_, a) in enumerate(entries) if a.at_sync is not None)
    actions = []
    for order in (timed, by_sync):
        settings = migration
        for _, number in order:
            own, action = entries[number]
            if action.do == "set":
                action, settings = _with_changes(own, action, settings)
            actions.append(action)
    return tuple(actions)


def _parse_entry(key: str, entry: object) -> Action:
    """Return the action of one entry. Its parameters are not yet checked."""
    if not isinstance(entry, Mapping):
        reject(key, entry, f"must be an entry such as {EXAMPLE}", "wrong_type")
    if unknown := entry.keys() - set(ENTRY_KEYS):
        name = min(unknown, key=str)
        reject_key(key, str(name), entry[name], ENTRY_KEYS, "An entry")
    if ("at" in entry) == ("at_sync" in entry):
        allowed = "needs either at (a time) or at_sync (a number of syncs)"
        reject(key, dict(entry), allowed, "contradiction")
    if ("do" in entry) == ("set" in entry):
        allowed = f"needs either do ({', '.join(SCHEDULED)}) or set (parameters)"
        reject(key, dict(entry), allowed, "contradiction")
    at_ns = None
    if "at" in entry:
        at_ns = _parse_time(f"{key}.at", entry["at"])
    else:
        check_whole(f"{key}.at_sync", entry["at_sync"], 1, MOST_COUNT)
    when = {"at_ns": at_ns, "at_sync": entry.get("at_sync")}
    if "do" in entry:
        check_choice(f"{key}.do", entry["do"], SCHEDULED)
        return Action(**when, do=entry["do"], changes={}, settings={})
    return Action(
        **when, do="set", changes={}, settings=_check_settable(f"{key}.set", entry["set"])
    )


def _parse_time(key: str, value: Any) -> int:
    if isinstance(value, bool):
        reject(key, value, 'must be a time, such as "60s", or a number of seconds', "wrong_type")
    at_ns = parse_value(key, value, parse_ns, '"60s" or a number of seconds from 0 on')
    if not 0 <= at_ns <= LONGEST_NS:
        reject(key, value, "must lie between 0 and 1e8 seconds", "out_of_range")
    return at_ns


def _check_settable(key: str, settings: object) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or not settings:
        allowed = "must hold parameters, such as {downtime_limit: 1000}"
        reject(key, settings, allowed, "wrong_type")
    for name, value in settings.items():
        if name in ("auto_converge", "multifd_channels"):
            hint = f"cannot change while QEMU migrates. Set migration.{name}"
            reject(f"{key}.{name}", value, hint, "not_supported")
        if name not in SETTABLE:
            reject_key(key, str(name), value, SETTABLE, "migrate-set-parameters")
    return dict(settings)


def parse_orders(orders: Orders, at_ns: int, migration: MigrationConfig) -> Iterator[Action]:
    """Yield the actions that a manager orders now.

    Args:
        orders: of the manager.
        at_ns: the current time.
        migration: the current settings.

    Raises:
        ConfigError: an order is not usable.
    """
    plain = Action(at_ns=at_ns, at_sync=None, do="set", changes={}, settings={})
    if orders.set:
        action = replace(plain, settings=_check_settable("set", orders.set))
        yield _with_changes("", action, migration)[0]
    if orders.do == "start-postcopy" and not migration.postcopy_ram:
        hint = "needs the capability postcopy-ram. Set migration.postcopy_ram=true"
        reject("do", orders.do, hint, "contradiction")
    if orders.do is not None:
        yield replace(plain, do=orders.do)


def _with_changes(
    key: str, action: Action, migration: MigrationConfig
) -> tuple[Action, MigrationConfig]:
    """Return the action with its parameters as numbers, and the migration's settings after it."""
    own = f"{key}.set".removeprefix(".")
    after = change_migration(own, migration, action.settings)
    try:
        parameters = parse_parameters(after)
    except ConfigError as error:
        raise error.with_prefix("migration.", f"{own}.") from None
    names = [FIELDS.get(name, name) for name in action.settings]
    return replace(
        action,
        changes={name: getattr(parameters, name) for name in names},
        settings={name: getattr(after, name) for name in action.settings},
    ), after
