"""What management does to a migration while it runs: the checks of `schedule`, and its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gpusim.config.checks import LONGEST_NS, parsed, reject, whole
from gpusim.config.plugins import KINDS
from gpusim.config.schema import MigrationConfig, PolicyConfig
from gpusim.errors import ConfigError
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import Orders
from gpusim.units import NS_PER_S, parse_ns

DEEDS = ("pause", "resume", "cancel")
EXAMPLE = '{at: "60s", do: cancel}, {at_sync: 5, set: {downtime_limit: 1000}}'
# What query-migrate-parameters lists; a capability cannot be changed while it migrates
# (migration/options.c:migrate_caps_check), and the rest is not QEMU's to set.
_SETTLED = ("version", "auto_converge", "fallback_sync_interval", "multifd_channels", *KINDS)
SETTABLE = tuple(f.name for f in fields(MigrationConfig) if f.name not in _SETTLED)
FIELDS = {"downtime_limit": "downtime_limit_ms"}  # of Parameters, where it has another name


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that is done.

    Attributes:
        at_ns: when; None: when `at_sync` syncs have ended.
        do: set, pause, resume or cancel.
        changes: of Parameters, for set.
        said: the same as the user said it.
    """

    at_ns: int | None
    at_sync: int | None
    do: str
    changes: Mapping[str, Any]
    said: Mapping[str, Any]

    @property
    def words(self) -> str:
        """For people."""
        when = (
            f"at_sync {self.at_sync}" if self.at_ns is None else f"at {self.at_ns / NS_PER_S:g} s"
        )
        return f"{when}: {self.do} {dict(self.said)}" if self.said else f"{when}: {self.do}"


def actions_of(
    key: str,
    schedule: object,
    migration: MigrationConfig,
    parameters_of: Callable[[MigrationConfig], Parameters],
) -> tuple[Action, ...]:
    """The actions of a schedule: those by time in order, then those by sync in order.

    Args:
        key: of the schedule in the config.
        schedule: as the config has it.
        migration: what holds before; a value is checked beside those that are set at earlier times, or
            at earlier syncs.
        parameters_of: checks the whole and makes numbers of it.

    Raises:
        ConfigError: an entry that cannot be understood or done.
    """
    if not isinstance(schedule, list | tuple):
        reject(key, schedule, f"must be a list such as [{EXAMPLE}]")
    found = []
    for number, entry in enumerate(schedule):
        own = f"{key}[{number}]"
        found.append((own, _action(own, entry)))
    timed = sorted((a.at_ns, n) for n, (_, a) in enumerate(found) if a.at_ns is not None)
    by_sync = sorted((a.at_sync, n) for n, (_, a) in enumerate(found) if a.at_sync is not None)
    actions = []
    for order in (timed, by_sync):
        after = migration
        for _, number in order:
            own, action = found[number]
            if action.do == "set":
                action, after = _with_changes(own, action, after, parameters_of)
            actions.append(action)
    return tuple(actions)


def _action(key: str, entry: object) -> Action:
    """One entry, its parameters not yet checked."""
    if not isinstance(entry, Mapping):
        reject(key, entry, f"must be an entry such as {EXAMPLE}")
    if strays := entry.keys() - {"at", "at_sync", "do", "set"}:
        stray = min(strays, key=str)
        reject(f"{key}.{stray}", entry[stray], "no such key; at, at_sync, do or set")
    if ("at" in entry) == ("at_sync" in entry):
        reject(
            key, dict(entry), "needs one of at (a time) and at_sync (a number of syncs), not both"
        )
    if ("do" in entry) == ("set" in entry):
        message = "needs one of do (pause, resume, cancel) and set (parameters), not both"
        reject(key, dict(entry), message)
    at_ns = None
    if "at" in entry:
        if isinstance(entry["at"], bool):
            reject(f"{key}.at", entry["at"], 'must be a time, such as "60s" or seconds')
        at_ns = parsed(f"{key}.at", entry["at"], parse_ns, '"60s" or seconds, from 0 on')
        if not 0 <= at_ns <= LONGEST_NS:
            reject(f"{key}.at", entry["at"], "must lie between 0 and 1e8 seconds")
    else:
        whole(f"{key}.at_sync", entry["at_sync"], 1, 2**53)
    when = {"at_ns": at_ns, "at_sync": entry.get("at_sync")}
    if "do" in entry:
        if entry["do"] not in DEEDS:
            reject(f"{key}.do", entry["do"], f"must be one of {', '.join(DEEDS)}")
        return Action(**when, do=entry["do"], changes={}, said={})
    return Action(**when, do="set", changes={}, said=_settable(f"{key}.set", entry["set"]))


def _settable(key: str, said: object) -> dict[str, Any]:
    if not isinstance(said, Mapping) or not said:
        reject(key, said, "must hold parameters, such as {downtime_limit: 1000}")
    for name, value in said.items():
        if name in ("auto_converge", "multifd_channels"):
            message = "is settled when the migration starts; set migration." + name
            reject(f"{key}.{name}", value, message)
        if name not in SETTABLE:
            reject(f"{key}.{name}", value, f"must be one of {', '.join(SETTABLE)}")
    return dict(said)


def ordered(
    orders: Orders,
    at_ns: int,
    migration: MigrationConfig,
    parameters_of: Callable[[MigrationConfig], Parameters],
) -> Iterator[Action]:
    """What a manager wants done now, as actions.

    Args:
        migration: as it is set now.
        parameters_of: as `actions_of` has it.

    Raises:
        ConfigError: an order that cannot be understood or done.
    """
    plain = Action(at_ns=at_ns, at_sync=None, do="set", changes={}, said={})
    if orders.set:
        action = replace(plain, said=_settable("set", orders.set))
        yield _with_changes("", action, migration, parameters_of)[0]
    if orders.do is not None:
        if orders.do not in DEEDS:
            reject("do", orders.do, f"must be one of {', '.join(DEEDS)}, or None")
        yield replace(plain, do=orders.do)


def _with_changes(
    key: str,
    action: Action,
    migration: MigrationConfig,
    parameters_of: Callable[[MigrationConfig], Parameters],
) -> tuple[Action, MigrationConfig]:
    """The action with its parameters as numbers, and what the migration is set to after it."""
    own = f"{key}.set".removeprefix(".")
    after = changed(own, migration, action.said)
    try:
        parameters = parameters_of(after)
    except ConfigError as error:
        raise error.moved("migration.", f"{own}.") from None
    names = [FIELDS.get(name, name) for name in action.said]
    return replace(action, changes={name: getattr(parameters, name) for name in names}), after


def changed(key: str, migration: MigrationConfig, said: Mapping[str, Any]) -> MigrationConfig:
    """A migration's config with some keys otherwise, types checked as Hydra checks the others."""
    kinds: dict[str, tuple[type, ...]]
    kinds = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,), "None": ()}
    kinds["PolicyConfig"] = (PolicyConfig,)
    said = {name: _policy(value) if name in KINDS else value for name, value in said.items()}
    types = {f.name: str(f.type).split(" | ") for f in fields(MigrationConfig)}
    for name, value in said.items():
        if name not in types:
            reject(f"{key}.{name}", value, f"no such key; migration has {', '.join(types)}")
        fits = [kind for kind in types[name] if isinstance(value, kinds[kind])]
        if isinstance(value, bool):
            fits = [kind for kind in fits if kind == "bool"]
        if not fits and not (value is None and "None" in types[name]):
            reject(f"{key}.{name}", value, f"must be of type {' | '.join(types[name])}")
    return MigrationConfig(**{**vars(migration), **said})


def _policy(said: Any) -> Any:
    """A policy that was said as a mapping, as the attempts' keys are; else what was said."""
    known = isinstance(said, Mapping) and said.keys() <= {"target", "args"}
    return PolicyConfig(**said) if known else said
