"""What management does to a migration while it runs: the checks of `schedule`, and its actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from gpusim.checks import LONGEST_NS, parsed, reject, whole
from gpusim.config import MigrationConfig
from gpusim.qemu.parameters import Parameters
from gpusim.units import parse_ns

DEEDS = ("pause", "resume", "cancel")
EXAMPLE = '{at: "60s", do: cancel}, {at_sync: 5, set: {downtime_limit: 1000}}'
# What query-migrate-parameters lists; a capability cannot be changed while it migrates
# (migration/options.c:migrate_caps_check), and the rest is not QEMU's to set.
SETTABLE = tuple(
    f.name
    for f in fields(MigrationConfig)
    if f.name not in ("version", "auto_converge", "fallback_sync_interval", "multifd_channels")
)
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


def actions_of(
    key: str,
    schedule: object,
    migration: MigrationConfig,
    parameters_of: Callable[[MigrationConfig], Parameters],
) -> tuple[Action, ...]:
    """The actions of a schedule.

    Args:
        key: of the schedule in the config.
        schedule: as the config has it.
        migration: what holds before; a value is checked beside those set before it in the list.
        parameters_of: checks the whole and makes numbers of it.

    Raises:
        ConfigError: an entry that cannot be understood or done.
    """
    if not isinstance(schedule, list | tuple):
        reject(key, schedule, f"must be a list such as [{EXAMPLE}]")
    actions = []
    for number, entry in enumerate(schedule):
        action, migration = _action(f"{key}[{number}]", entry, migration, parameters_of)
        actions.append(action)
    return tuple(actions)


def _action(
    key: str,
    entry: object,
    migration: MigrationConfig,
    parameters_of: Callable[[MigrationConfig], Parameters],
) -> tuple[Action, MigrationConfig]:
    """One entry, and what the migration is set to after it."""
    if not isinstance(entry, Mapping):
        reject(key, entry, f"must be an entry such as {EXAMPLE}")
    if strays := entry.keys() - {"at", "at_sync", "do", "set"}:
        reject(f"{key}.{min(strays)}", entry[min(strays)], "no such key; at, at_sync, do or set")
    if ("at" in entry) == ("at_sync" in entry):
        reject(key, dict(entry), "needs either at (a time) or at_sync (a number of syncs)")
    if ("do" in entry) == ("set" in entry):
        reject(key, dict(entry), "needs either do (pause, resume, cancel) or set (parameters)")
    at_ns = None
    if "at" in entry:
        at_ns = parsed(f"{key}.at", entry["at"], parse_ns, '"60s" or seconds')
        if not 0 <= at_ns <= LONGEST_NS:
            reject(f"{key}.at", entry["at"], "must lie between 0 and 1e8 seconds")
    else:
        whole(f"{key}.at_sync", entry["at_sync"], 1, 2**53)
    when = {"at_ns": at_ns, "at_sync": entry.get("at_sync")}
    if "do" in entry:
        if entry["do"] not in DEEDS:
            reject(f"{key}.do", entry["do"], f"must be one of {', '.join(DEEDS)}")
        return Action(**when, do=entry["do"], changes={}, said={}), migration
    said = entry["set"]
    if not isinstance(said, Mapping) or not said:
        reject(f"{key}.set", said, "must hold parameters, such as {downtime_limit: 1000}")
    for name, value in said.items():
        if name == "auto_converge":
            reject(
                f"{key}.set.{name}", value, "is a capability: it cannot change while it migrates"
            )
        if name not in SETTABLE:
            reject(f"{key}.set.{name}", value, f"must be one of {', '.join(SETTABLE)}")
    after = changed(f"{key}.set", migration, said)
    parameters = parameters_of(after)
    names = [FIELDS.get(str(name), str(name)) for name in said]
    changes = {name: getattr(parameters, name) for name in names}
    return Action(**when, do="set", changes=changes, said=dict(said)), after


def changed(key: str, migration: MigrationConfig, said: Mapping[str, Any]) -> MigrationConfig:
    """A migration's config with some keys otherwise, types checked as Hydra checks the others."""
    kinds: dict[str, tuple[type, ...]]
    kinds = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,), "None": ()}
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
