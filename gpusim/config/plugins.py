"""A class that a user named becomes a rule: found, checked and bound to its arguments.

Owns where a module is looked for, every check of a class, and which of its source decides a run. What a
rule of each kind must offer is qemu/rules.py's.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gpusim.config.checks import reject
from gpusim.config.schema import MigrationConfig, PolicyConfig
from gpusim.errors import ConfigError
from gpusim.qemu.rules import Manager, SwitchoverPolicy, SyncTimerPolicy, ThrottlePolicy

KINDS: dict[str, tuple[type, tuple[str, ...]]] = {  # what it must offer, what it is made with
    "throttle_rule": (ThrottlePolicy, ("parameters",)),
    "sync_timer_rule": (SyncTimerPolicy, ("interval_ns", "state")),
    "switchover_rule": (SwitchoverPolicy, ()),
    "manager": (Manager, ()),
}
LONGEST_ARGUMENT = 40  # characters
FORM = "must be module:Class, such as my_rules:MyThrottle for the class MyThrottle of my_rules.py"


def policies_of(migration: MigrationConfig) -> dict[str, PolicyConfig]:
    """Those that are set, by their key.

    Raises:
        ConfigError: one is something else.
    """
    found = {name: getattr(migration, name) for name in KINDS}
    for name, policy in found.items():
        if policy is not None and not isinstance(policy, PolicyConfig):
            reject(f"migration.{name}", policy, "must be a PolicyConfig, or None")
    return {name: policy for name, policy in found.items() if policy is not None}


def describe_policies(migration: MigrationConfig) -> str:
    """The same for people: "throttle_rule my_rules:MyThrottle(step=5)"; empty if there are none."""
    return ", ".join(f"{name} {_called(p)}" for name, p in policies_of(migration).items())


def _called(policy: PolicyConfig) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in policy.args.items())
    return f"{policy.target}({arguments})" if arguments else policy.target


def _short(value: object) -> str:
    """An argument in a title; the config has all of it."""
    text = str(value)
    return text if len(text) <= LONGEST_ARGUMENT else f"{text[: LONGEST_ARGUMENT - 3]}..."


def make_factory(name: str, policy: PolicyConfig, *given: Any) -> Callable[..., Any]:
    """What makes a rule for a migration, from the values that every rule of its kind is made with.

    Args:
        name: of the key in `migration`, one of KINDS.
        given: such values, to make one with, which is checked and thrown away.

    Raises:
        ConfigError: there is no such class, it lacks something, or the arguments are not its.
    """
    key, (protocol, told) = f"migration.{name}", KINDS[name]
    rule = _class_of(f"{key}.target", policy.target)
    members = _members(protocol)
    lacks = [m for m, is_method in members.items() if is_method and not _has_method(rule, m)]
    if lacks:
        _reject_lack(f"{key}.target", policy.target, protocol, "methods", lacks)
    _check_arguments(f"{key}.args", policy, rule, told)
    try:
        made = _make(rule, policy, *given)
    except Exception as error:
        problem = f"{policy.target} cannot be made with them: {type(error).__name__}: {error}"
        reject(f"{key}.args", policy.args, problem)
    if lacks := [m for m, is_method in members.items() if not is_method and not hasattr(made, m)]:
        _reject_lack(f"{key}.target", policy.target, protocol, "attributes", lacks)
    return lambda *given: _make(rule, policy, *given)


def _make(rule: type, policy: PolicyConfig, *given: Any) -> Any:
    """With arguments of its own, so that a rule that uses up a list leaves the config as it was."""
    return rule(*given, **deepcopy(policy.args))


def _members(protocol: type) -> dict[str, bool]:
    """Names that a protocol asks for, and whether each is a method."""
    values = dict.fromkeys(protocol.__annotations__, False)
    public = {n: m for n, m in vars(protocol).items() if not n.startswith("_")}
    return values | {n: inspect.isfunction(m) for n, m in public.items()}


def _has_method(rule: type, name: str) -> bool:
    return callable(getattr(rule, name, None))


def _reject_lack(key: str, target: str, protocol: type, what: str, names: list[str]) -> None:
    lacking = f"lacks the {what} {', '.join(names)}"
    reject(key, target, f"{lacking}; gpusim/qemu/rules.py says what a {protocol.__name__} offers")


def _class_of(key: str, target: object) -> type:
    module_name, colon, name = str(target).partition(":")
    parts = [*module_name.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        reject(key, target, FORM)
    module = _imported(key, str(target), module_name)
    if module.__dict__.get("__file__") is None:
        reject(key, target, f"{module_name} has no file, so that a change of it would go unnoticed")
    rule: Any = module
    for part in name.split("."):
        rule = getattr(rule, part, None)
    if rule is None:
        there = [n for n, c in vars(module).items() if _is_own_class(c, module)]
        reject(
            key, target, f"{module_name} has no {name}; its classes: {', '.join(there) or 'none'}"
        )
    if not inspect.isclass(rule):
        reject(key, target, f"{name} is no class but of type {type(rule).__name__}; name a class")
    source_hash(module_name)  # of what was imported, should the file change later
    return rule


def _is_own_class(value: object, module: ModuleType) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__


def _imported(key: str, target: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            where = f"no module {error.name} on Python's path or in {os.getcwd()}"
            reject(key, target, f"{where}; go to its folder, or set PYTHONPATH to it")
        reject(key, target, f"{name} cannot be imported: {error}")
    except (Exception, SystemExit) as error:
        reject(key, target, f"{name} cannot be imported: {type(error).__name__}: {error}")


def _check_arguments(key: str, policy: PolicyConfig, rule: type, told: tuple[str, ...]) -> None:
    """Refuse arguments that the class does not take, or does not get, by their names."""
    if not isinstance(policy.args, Mapping) or not all(isinstance(n, str) for n in policy.args):
        reject(key, policy.args, "must be names and values, such as {step: 5}")
    takes = list(inspect.signature(rule).parameters.values())
    named = [p for p in takes if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = {p.name: p for p in named[len(told) :]}
    if len(named) < len(told) and not any(p.kind is p.VAR_POSITIONAL for p in takes):
        message = f"{policy.target} is made with {', '.join(told)} first, and does not take them"
        reject(key, policy.args, message)
    strays = [n for n in policy.args if n not in own]
    if strays and not any(p.kind is p.VAR_KEYWORD for p in takes):
        takes_only = f"it takes {', '.join(own) or 'none'}"
        reject(key, policy.args, f"{policy.target} takes no {', '.join(strays)}; {takes_only}")
    missing = [n for n, p in own.items() if p.default is p.empty and n not in policy.args]
    if missing:
        reject(key, policy.args, f"{policy.target} needs {', '.join(missing)}")


def sources_of(migration: MigrationConfig) -> list[str]:
    """A hash of the source behind each policy; where one cannot be loaded, why."""
    found = []
    try:
        for name, policy in policies_of(migration).items():
            rule = _class_of(f"migration.{name}.target", policy.target)
            found += [source_hash(rule.__module__), source_hash(policy.target.split(":")[0])]
    except ConfigError as error:
        found.append(str(error))
    return found


@cache
def source_hash(name: str) -> str:
    """Of a module that is imported, and of those it uses that lie in the same folder or below it.

    As they were when this was first asked: a process keeps what it has imported. Of an
    installed package the module alone counts; gpusim's own source is in every run's hash.
    """
    module = sys.modules[name]
    if vars(module).get("__file__") is None:  # built into Python
        return ""
    above = Path(str(module.__file__)).resolve().parents
    folder = above[name.count(".") + hasattr(module, "__path__")]
    digest = hashlib.sha256()
    for path in sorted(_files(module, folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(module: ModuleType, folder: Path) -> set[Path]:
    found, waiting, seen = set[Path](), [module], set[str]()
    while waiting:
        module = waiting.pop()
        path = Path(vars(module).get("__file__") or os.devnull).resolve()
        seen.add(module.__name__)
        installed = "site-packages" in path.parts
        if not path.is_relative_to(folder) or (installed and found):
            continue
        found.add(path)
        names: set[Any] = {
            value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            for value in vars(module).values()
        }
        names |= _named_imports(path, module.__package__)
        waiting += [
            sys.modules[name]
            for name in names - seen
            if sys.modules.get(name) and not f"{name}.".startswith("gpusim.")
        ]
    return found


def _named_imports(path: Path, package: str | None) -> set[str]:
    """Modules that a file's import statements may mean; what is left of a number does not tell its own."""
    if path.suffix != ".py":
        return set()
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            said = "." * node.level + (node.module or "")
            with suppress(ImportError):  # of a statement that has not run, and could not
                base = importlib.util.resolve_name(said, package)
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names
