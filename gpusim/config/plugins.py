"""A user's class becomes a rule: this module finds it, checks it and binds its arguments.

Owns where Python looks for the module, every check of the class, and which part of its source
decides a run. qemu/rules.py says what a rule of each kind must offer.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from gpusim.config.checks import reject
from gpusim.config.schema import MigrationConfig, PolicyConfig
from gpusim.errors import ArgumentError, ConfigError
from gpusim.policies import user_rule
from gpusim.qemu.rules import (
    BandwidthPolicy,
    Manager,
    SwitchoverPolicy,
    SyncTimerPolicy,
    ThrottlePolicy,
)
from gpusim.reading import ReadingError, read_bytes
from gpusim.text import did_you_mean, shorten

T = TypeVar("T")
KINDS: dict[str, tuple[type, tuple[str, ...]]] = {  # protocol, arguments of every rule of the kind
    "throttle_rule": (ThrottlePolicy, ("parameters",)),
    "sync_timer_rule": (SyncTimerPolicy, ("interval_ns", "state")),
    "switchover_rule": (SwitchoverPolicy, ()),
    "bandwidth_rule": (BandwidthPolicy, ()),
    "manager": (Manager, ()),
}
LONGEST_ARGUMENT = 40  # characters
FORM = "must be module:Class, such as my_rules:MyThrottle for the class MyThrottle of my_rules.py"


def policies_of(migration: MigrationConfig) -> dict[str, PolicyConfig]:
    """Return the policies that are set, by their key. `types.checked` refuses any other value."""
    found = {name: getattr(migration, name) for name in KINDS}
    return {name: policy for name, policy in found.items() if isinstance(policy, PolicyConfig)}


def describe_policies(migration: MigrationConfig) -> str:
    """Return them for people: "throttle_rule my_rules:MyThrottle(step=5)". Empty: there are none."""
    return ", ".join(f"{name} {_call_text(p)}" for name, p in policies_of(migration).items())


def _call_text(policy: PolicyConfig) -> str:
    texts = ((name, shorten(str(value), LONGEST_ARGUMENT)) for name, value in policy.args.items())
    arguments = ", ".join(f"{name}={text}" for name, text in texts)
    return f"{policy.target}({arguments})" if arguments else policy.target


def make_factory(name: str, policy: PolicyConfig, *given: Any) -> Callable[..., Any]:
    """Return a function that makes the rule of a migration.

    The function takes the values that every rule of the kind is made with.

    Args:
        name: the key in `migration`, one of KINDS.
        policy: the user's class and arguments.
        given: example values. One rule is made with them, checked and thrown away.

    Raises:
        ConfigError: there is no such class, it lacks members, or it refuses the arguments.
    """
    key, (protocol, leading) = f"migration.{name}", KINDS[name]
    members = _members(protocol)

    def find() -> type:
        rule = _class_of(f"{key}.target", policy.target)
        lacks = [m for m, is_method in members.items() if is_method and not _has_method(rule, m)]
        if lacks:
            _reject_lack(f"{key}.target", policy.target, protocol, "methods", lacks)
        _check_arguments(f"{key}.args", policy, rule, leading)
        return rule

    refuse = partial(_refusal, f"{key}.target", policy.target, "cannot_import")
    rule = _ask(find, partial(refuse, "cannot be used as a rule"))

    def make(*given: Any) -> Any:
        # A rule that changes a list among its arguments must not change the config.
        return rule(*given, **deepcopy(policy.args))

    def make_and_check() -> None:
        made = make(*given)
        lacks = [m for m, is_method in members.items() if not is_method and not hasattr(made, m)]
        if lacks:
            _reject_lack(f"{key}.target", policy.target, protocol, "attributes", lacks)

    problem = f"{policy.target} cannot be made with them"

    def refuse_arguments(error: BaseException) -> ConfigError:
        if isinstance(error, ArgumentError):
            place = f"{key}.args.{error.name}"
            return ConfigError(place, error.value, error.problem, "wrong_arguments")
        return _refusal(f"{key}.args", policy.args, "wrong_arguments", problem, error)

    _ask(make_and_check, refuse_arguments)
    wrapper = user_rule.KINDS[name]
    return lambda *given: wrapper(user_rule.UserRule(policy.target, partial(make, *given)))


def _ask(ask: Callable[[], T], refuse: Callable[[BaseException], ConfigError]) -> T:
    """Return what the user's code gives. Whatever it raises becomes a ConfigError."""
    try:
        return ask()
    except ConfigError:
        raise
    except BaseException as error:
        if user_rule.is_signal(error):
            raise
        refusal, cause = refuse(error), user_rule.cause_of(error)
    raise refusal from cause


def _refusal(key: str, value: object, code: str, problem: str, error: BaseException) -> ConfigError:
    place = user_rule.raised_at(error)
    reason = f"{user_rule.reason_of(error)}{f', at {place}' if place else ''}"
    return ConfigError(key, value, f"{problem}: {reason}", code)


def _members(protocol: type) -> dict[str, bool]:
    """Return the names that a protocol asks for, and whether each is a method."""
    values = dict.fromkeys(protocol.__annotations__, False)
    public = {n: m for n, m in vars(protocol).items() if not n.startswith("_")}
    return values | {n: inspect.isfunction(m) for n, m in public.items()}


def _has_method(rule: type, name: str) -> bool:
    return callable(getattr(rule, name, None))


def _reject_lack(key: str, target: str, protocol: type, what: str, names: list[str]) -> None:
    problem = f"lacks the {what} {', '.join(names)}"
    hint = f"See {protocol.__name__} in gpusim/qemu/rules.py"
    reject(key, target, f"{problem}. {hint}", "lacks_members")


def _class_of(key: str, target: object) -> type:
    module_name, colon, name = str(target).partition(":")
    parts = [*module_name.split("."), *name.split(".")]
    if not target:
        reject(key, "missing", f"{FORM}. Add {key}=MODULE:CLASS", "missing")
    if not colon or not all(map(str.isidentifier, parts)) or module_name.endswith(".py"):
        reject(key, target, f"{FORM}{_probably_meant(str(target))}", "wrong_format")
    module = _imported(key, str(target), module_name)
    if module.__dict__.get("__file__") is None:
        problem = f"{module_name} has no file, so gpusim could not notice a change"
        reject(key, target, problem, "cannot_import")
    rule: Any = module
    for part in name.split("."):
        rule = getattr(rule, part, None)
    if rule is None:
        classes = [n for n, c in vars(module).items() if _is_own_class(c, module)]
        problem = f"{module_name} has no {name}. Its classes: {', '.join(classes) or 'none'}"
        reject(key, target, problem, "cannot_import")
    if not inspect.isclass(rule):
        problem = f"{name} has the type {type(rule).__name__}. Name a class"
        reject(key, target, problem, "cannot_import")
    try:
        source_hash(module_name)  # now, because the file may change later
        source_hash(rule.__module__)
    except ReadingError as error:
        reject(key, target, f"{error}, so gpusim could not notice a change", "cannot_import")
    return rule


def _probably_meant(target: str) -> str:
    """Return a hint for the path of a file and a class, or for a class behind a dot, or ""."""
    path, _, name = target.rpartition(":" if ":" in target else ".")
    folder, _, module = path.removesuffix(".py").removeprefix("./").rpartition("/")
    if not all(map(str.isidentifier, [*module.split("."), *name.split(".")])):
        return ""
    where = f" Set PYTHONPATH={folder}" if folder else ""
    return f". Did you mean {module}:{name}?{where}"


def _is_own_class(value: object, module: ModuleType) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__


def _imported(key: str, target: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()

    def refuse(error: BaseException) -> ConfigError:
        missing = error.name if type(error) is ModuleNotFoundError else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            return _refusal(key, target, "cannot_import", f"{name} cannot be imported", error)
        problem = f"no module {missing} on Python's path or in {os.getcwd()}"
        hint = "Change to its folder, or set PYTHONPATH to it"
        return ConfigError(key, target, f"{problem}. {hint}", "cannot_import")

    module = _ask(partial(importlib.import_module, name), refuse)
    if type(module) is not ModuleType and not isinstance(module, ModuleType):
        reject(key, target, f"{name} is no module", "cannot_import")
    return module


def _check_arguments(key: str, policy: PolicyConfig, rule: type, leading: tuple[str, ...]) -> None:
    """Refuse arguments that the class does not take, and name those that it needs.

    Args:
        key: of the arguments.
        policy: has them.
        rule: the class.
        leading: names of the arguments that every rule of the kind gets first.
    """
    if not all(isinstance(name, str) for name in policy.args):
        reject(key, policy.args, "must be names and values, such as {step: 5}", "wrong_type")
    takes = list(inspect.signature(rule).parameters.values())
    named = [p for p in takes if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = {p.name: p for p in named[len(leading) :]}
    if len(named) < len(leading) and not any(p.kind is p.VAR_POSITIONAL for p in takes):
        problem = (
            f"gpusim passes {', '.join(leading)} first, and {policy.target} does not take them"
        )
        reject(key, policy.args, problem, "wrong_arguments")
    unknown = [n for n in policy.args if n not in own]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes):
        name = unknown[0]
        problem = f"{policy.target} takes {', '.join(own) or 'no arguments'}"
        # A tool's own name is often the argument's with words around it.
        meant = did_you_mean(name, own) or did_you_mean(_contained(name, own), own)
        reject(f"{key}.{name}", policy.args[name], f"{problem}.{meant}", "wrong_arguments")
    missing = [n for n, p in own.items() if p.default is p.empty and n not in policy.args]
    if missing:
        problem = f"{policy.target} needs {', '.join(missing)}"
        reject(key, policy.args, problem, "wrong_arguments")


def _contained(name: str, known: Iterable[str]) -> str:
    """Return the longest known name that a name has in it: "downtime" of liveMigrationDowntime."""
    plain = name.lower().replace("_", "").replace("-", "")
    return max((one for one in known if one.replace("_", "") in plain), key=len, default="")


def sources_of(migration: MigrationConfig) -> list[str]:
    """Return a hash of the source of each policy, or the error if it cannot be loaded."""
    found = []
    try:
        for name, policy in policies_of(migration).items():
            key = f"migration.{name}.target"
            refuse = partial(
                _refusal, key, policy.target, "cannot_import", "has no readable source"
            )
            found += _ask(partial(_sources, key, policy.target), refuse)
    except ConfigError as error:
        found.append(str(error))
    return found


def _sources(key: str, target: str) -> list[str]:
    rule = _class_of(key, target)
    return [source_hash(rule.__module__), source_hash(target.partition(":")[0])]


@cache
def source_hash(name: str) -> str:
    """Return a hash of an imported module and of the modules that it uses from its own folder.

    Args:
        name: of the module.

    Returns:
        The hash at the first call, because a process keeps what it has imported. Of an installed
        package only the module counts. Every run's hash covers gpusim's own source.

    Raises:
        ReadingError: a file of the source cannot be read.
    """
    module = sys.modules[name]
    if vars(module).get("__file__") is None:  # built into Python
        return ""
    above = Path(str(module.__file__)).resolve().parents
    folder = above[name.count(".") + hasattr(module, "__path__")]
    digest = hashlib.sha256()
    for path in sorted(_files(module, folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(read_bytes(path))
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
    """Return the modules that a file's import statements may name."""
    if path.suffix != ".py":
        return set()
    names: set[str] = set()
    try:
        tree = ast.parse(read_bytes(path))
    except (SyntaxError, ValueError, RecursionError):  # changed since it was imported
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            with suppress(ImportError):  # a statement that has not run may be wrong
                base = importlib.util.resolve_name(relative, package)
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names
