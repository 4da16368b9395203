"""One line for everything that composing a config raises: the key, the value and what is allowed.

Hydra, OmegaConf, the parser and the YAML library raise dozens of kinds of errors on several lines,
with hints that do not fit gpusim. Here each becomes a ConfigError with a code. Few of these errors
hold data, so the module looks for the fault in the overrides. It shows a value as the user typed it.
Later checks show a value as it was resolved.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    InterpolationValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError, YAMLError

from gpusim.config.key_hints import (
    PRESETS_ELSEWHERE,
    keys_of,
    nearest_keys,
    package_text,
    unknown_key_text,
)
from gpusim.config.override import Override, refusal, split
from gpusim.config.presets import preset_groups, preset_names
from gpusim.config.schema import PATTERNS, AttemptConfig, Config, PolicyConfig, WorkloadConfig
from gpusim.config.types import DEEPEST, NAMES, POLICY_FORM, checked
from gpusim.errors import (
    LONGEST_MESSAGE,
    ConfigError,
    install_command,
    one_line,
)
from gpusim.qemu.versions import find_version
from gpusim.text import sentences
from gpusim.units import RATE_UNITS, SIZE_UNITS, read_quantity, spelled_out

# Hydra and OmegaConf add hints after the error itself.
_HINTS = re.compile(
    r"\n\s*full_key:|\nTo append to your|\nConfig search path:|\nAvailable options|\nSee https:"
)
_EXTRAS = (  # presets that a plug-in of Hydra brings -> the extra that installs it
    (re.compile(r"hydra/launcher/joblib"), "joblib"),
    (re.compile(r"hydra/launcher/ray(_aws)?"), "ray"),
    (re.compile(r"hydra/launcher/submitit_(local|slurm)"), "slurm"),
    (re.compile(r"hydra/sweeper/(optuna|sampler/\w+)"), "optuna"),
)
_FILE = re.compile(r"In '([^'\n]+)'|(?:merging|loading) '([^'\n]+)'")
_MOST_ERRORS = 50  # of a chain of causes
_WRITE = 'Write KEY=VALUE, such as link.bandwidth="10Gbit/s"'
_QUOTE = "Quote a text with special characters: 'KEY=\"VALUE\"'"
_MAPPING = "Write a mapping as {KEY: VALUE, KEY: VALUE}, with keys that have no quotes"
_CALL = "Write values as KEY=A,B or KEY=range(1,10)"
_ADDED = 'is a key or group of the config already. Write KEY=VALUE, without "+"'
_ABSENT = "is not there, so it cannot be removed. Leave it out"
_SEVERAL = (
    "has several values, which only a sweep takes (gpusim -m). For one list write KEY=[A,B], for one "
    "text 'KEY=\"A,B\"'"
)
_BY_TEXT = (  # how Hydra's texts begin -> code, what to type. These errors hold no data
    ("Ambiguous value", "several_values", _SEVERAL),
    ("Sweep parameters", "several_values", _SEVERAL),
    ("Sweeping over Hydra", "several_values", "must have one value. A sweep cannot change it"),
    ("Could not delete", "unknown_key", _ABSENT),
    ("Config group override deletion", "unknown_key", _ABSENT),
    ("Could not append", "contradiction", _ADDED),
    ("Multiple values for", "contradiction", _ADDED),
    ("force-add of config groups", "contradiction", _ADDED),
    ("hydra.searchpath must be", "wrong_type", "must be a list of folders: [file:///FOLDER]"),
    ("You must specify", "missing", "must be set. Name a preset"),
    ("Error resolving interpolation", "wrong_reference", "cannot refer to a key of a config"),
)  # fmt: skip
_LIBRARY = (  # in the texts of OmegaConf's errors about Hydra's own keys -> what is allowed
    (re.compile(r"is not Optional"), "must not be null"),
    (re.compile(r"Cannot convert '\w+' to string"), "must be a text"),
    (re.compile(r"could not be converted to Integer"), "must be a whole number"),
    (re.compile(r"could not be converted to Float"), "must be a number"),
    (re.compile(r"is not a valid bool"), "must be true or false"),
    (re.compile(r"Cannot merge DictConfig with ListConfig"), "must hold names and values"),
    (re.compile(r"Cannot merge ListConfig with DictConfig"), "must be a list"),
    (re.compile(r"Config group override must be"), "must be the name of a preset, such as basic"),
    (re.compile(r"Incompatible key type"), "has a key that is no text. Write {KEY: VALUE}"),
)


@contextmanager
def one_compose_error(overrides: Sequence[str], folders: Sequence[Path] = ()) -> Iterator[None]:
    """Turn whatever composing raises into a ConfigError.

    Args:
        overrides: what is composed.
        folders: of the user's, with more presets.

    Raises:
        ConfigError: composing failed. Only a lack of memory is raised as it is.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", r"provider=.* is not available", UserWarning)
            yield
    except MemoryError:
        raise
    except Exception as error:
        raise compose_error(error, overrides, folders) from error


def compose_error(
    error: BaseException,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
) -> ConfigError:
    """Return the error of a config that does not compose, as one line with a code.

    Args:
        error: of Hydra, OmegaConf, the parser, the YAML library or the system.
        overrides: what the user typed.
        folders: of the user's, with more presets.

    Returns:
        The error itself if it is a ConfigError. If no rule knows the error, then the code is
        not_composed.
    """
    if isinstance(error, ConfigError):
        return error
    source = "set by a file"  # what set a value that no override sets
    given = [split(text) for text in overrides]
    chain = list(_chain(error))
    if any(isinstance(one, RecursionError) for one in chain):
        deepest = max(given, key=_depth, default=None)
        if deepest is None or _depth(deepest) < DEEPEST:
            deepest = _last_preset(given, folders)
        return refusal(deepest, "has too many levels, or refers to itself", "too_deep")
    for one in chain:
        file = _FILE.search(str(one))
        if file:
            source = f"set by {file[1] or file[2]}.yaml"
        if isinstance(one, OverrideParseException):
            return _syntax(one)
        if isinstance(one, UserWarning):
            where = str(one).partition("path=")[2].removesuffix(" is not available.")
            return ConfigError(
                "hydra.searchpath", where, "there is no such folder", "unknown_choice"
            )
        if isinstance(one, MissingConfigException):
            return _no_file(one, given)
        if isinstance(one, OmegaConfBaseException) and getattr(one, "full_key", None):
            return _of_key(one, given, source, folders)
        if isinstance(one, YAMLError | UnicodeError | OSError):
            return _of_file(one, source, _last_preset(given, folders))
    return _of_overrides(error, given, folders)


def describe(error: BaseException) -> str:
    """Return an error of Hydra, OmegaConf or YAML, and its cause, on one line without hints."""
    texts = [_text(one) for one in (error, error.__cause__) if one is not None]
    shown = texts[0] if texts[-1] in texts[0] else ": ".join(text for text in texts if text)
    return shown or type(error).__name__


def _text(error: BaseException) -> str:
    return one_line(_HINTS.split(str(error)[: 8 * LONGEST_MESSAGE])[0])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    one: BaseException | None = error
    for _ in range(_MOST_ERRORS):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _depth(given: Override) -> int:
    return len(re.findall(r"[\[{(]", given.text))


def _last_preset(given: Sequence[Override], folders: Sequence[Path]) -> Override | None:
    groups = preset_groups(folders)
    return next((one for one in reversed(given) if one.key in groups), None)


def _syntax(error: OverrideParseException) -> ConfigError:
    """Return why a text is no override."""
    text = error.override
    given = split(text)
    key, is_set, value = text.partition("=")
    strange = next((char for char in text if not (char.isprintable() or char.isspace())), None)
    if "while evaluating" in error.message:
        return refusal(given, _call_text(describe(error)), "wrong_format")
    if strange is not None:
        why = f"holds {ascii(strange)[1:-1]}, which no value may hold"
    elif not is_set and text not in preset_groups():
        why = f"is no setting. {_WRITE}"
    elif not is_set:
        why = f"is a group of presets. Write {text}=PRESET"
    elif not re.fullmatch(r"~?\+{0,2}[\w$.:/@-]+", key) or ".." in key or key.endswith("."):
        why = f"has no valid key. {_WRITE}"
    elif value.count('"') % 2 or value.count("'") % 2:
        why = 'has a quote that is not closed. Write a quote inside of a text as \\"'
    elif any(value.count(first) != value.count(last) for first, last in ("[]", "{}", "()")):
        why = "has a bracket without its partner"
    else:
        why = f"cannot be parsed. {_MAPPING if '{' in value else _QUOTE}"
    return refusal(given, why, "wrong_format")


def _call_text(reason: str) -> str:
    """Return why a call such as range(a) has no value."""
    unknown = re.search(r"Unknown function '(\w+)'.*Available: ?([\w,]+)", reason)
    if unknown:
        return f"there is no function {unknown[1]}. Known are {unknown[2].replace(',', ', ')}"
    if "NoneType" in reason:
        return "a function takes no null. Write the values without it: KEY=A,null"
    return f"is a call with a wrong or missing argument. {_CALL}"


def _no_file(error: MissingConfigException, given: Sequence[Override]) -> ConfigError:
    """Return that a preset, or the first file of all, does not exist."""
    path = error.missing_cfg_file
    if path is None:
        return ConfigError("--config-path", "...", describe(error), "unknown_choice")
    chosen = next((one for one in given if one.key and path.startswith(f"{one.key}/")), None)
    group, _, name = path.rpartition("/")
    if chosen is not None:  # its value may be a reference
        group, name = chosen.text.partition("=")[0].lstrip("+~"), chosen.value or ""
    extra = next((name for mark, name in _EXTRAS if mark.fullmatch(path)), None)
    if extra is not None:
        own = (one for key in (group, "sweep") for one in reversed(given) if one.key == key)
        wanted = next(own, None)
        needs = f"needs gpusim's extra {extra}. In gpusim's folder type {install_command(extra)}"
        if wanted is not None:
            return refusal(wanted, needs, "not_installed")
        return ConfigError(group, name, needs, "not_installed")
    options = [one for one in error.options or () if not one.startswith("base_")]
    if not group and not options:
        allowed = "no such file in the folders of the config. Leave out --config-name"
        return ConfigError("--config-name", name, allowed, "unknown_choice")
    return ConfigError(group, name, _presets_text(group, name, options), "unknown_choice")


# Groups whose presets are called by a quantity -> the key of another quantity, its units, an example.
QUANTITIES = {
    "link": ("link.bandwidth", RATE_UNITS, "40Gbit/s"),
    "vm": ("vm.memory", SIZE_UNITS, "64GiB"),
}


def _presets_text(group: str, name: str, options: Sequence[str]) -> str:
    nearest = [one for one in options if name and one.startswith(name)]
    nearest += [one for one in options if name and one.endswith(f"_{name.replace('.', '_')}")]
    if group == "migration" and not nearest and find_version(name) in options:
        nearest = [str(find_version(name))]
    elsewhere = PRESETS_ELSEWHERE.get(group, {}).get(re.sub(r"[\W_]", "", name.lower()))
    if elsewhere in options and not nearest:
        nearest = [str(elsewhere)]
    is_quantity = group in QUANTITIES and name[:1].isdigit() and name[-1:].isalpha()
    if not (nearest or is_quantity):
        nearest = get_close_matches(name, options, 1)
    meant = [f"{group}={min(nearest, key=len)}"] if nearest else []
    other = ""
    if is_quantity:
        key, units, example = QUANTITIES[group]
        spelled = [f"{key}={one}" for one in spelled_out(name, units)]
        meant += spelled
        other = "" if spelled else f"For another, type {key}={example}"
    quoted = " or ".join(f'"{one}"' for one in meant)
    hints = [f"Did you mean {quoted}?"] * bool(meant) + [other] * bool(other)
    return sentences(f"must be one of {', '.join(options)}", *hints)


def _of_key(
    error: OmegaConfBaseException,
    given: Sequence[Override],
    source: str,
    folders: Sequence[Path],
) -> ConfigError:
    """Return an error of OmegaConf, which names the key."""
    key = error.full_key
    assert key is not None
    value = _value_of(key, given)
    if error.object_type is AttemptConfig:  # an entry of a list, whose own keys OmegaConf names
        key, value = _in_attempts(key, given)
    shown = source if value is None else value
    removed = next((one for one in given if one.key == key and one.text.startswith("~")), None)
    if removed is not None:
        return refusal(removed, f"cannot be removed. Write {key}=VALUE", "missing")
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        allowed = package_text(key, folders)
        if allowed and any(_sets_keys(one, key) for one in given):
            allowed = f"takes the name of a preset, and has no keys. Write {key}=PRESET"
        allowed = allowed or unknown_key_text(key, error.object_type, folders, value)
        return ConfigError(key, shown, allowed, "unknown_key")
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(key, "missing", f"must be set. Add {key}=VALUE", "missing")
    is_reference = "${" in str(value)
    if isinstance(error, InterpolationResolutionError | GrammarParseError) and not isinstance(
        error, InterpolationValidationError
    ):
        if key == "_dummy_":  # while Hydra chooses presets
            wanted = next((one for one in given if "${" in one.text), None)
            return refusal(wanted, "refers to nothing that exists here", "wrong_reference")
        named = re.search(r"'([\w.:-]+)' not found", str(error))
        what = f"{named[1]}, which does not exist" if named else "what cannot be resolved"
        hint = "Write ${KEY} with a key of the config, or ${oc.env:NAME} with a variable"
        return ConfigError(key, shown, f"refers to {what}. {hint}", "wrong_reference")
    allowed = _type_text(key, value)
    if not allowed:  # a class of Hydra's
        hides = is_reference or value is None
        allowed = "has a wrong type" if hides else _library_text(describe(error))
    elif key.endswith(".target") and "null" in str(value):
        allowed += f". For no class write {key.removesuffix('.target')}=null"
    return ConfigError(key, shown, allowed, "wrong_type")


def _sets_keys(given: Override, group: str) -> bool:
    """Return whether an override sets keys of a group, and does not choose a preset of it."""
    is_mapping = given.key == group and (given.value or "").lstrip().startswith("{")
    return is_mapping or given.key.startswith(f"{group}.")


def _library_text(text: str) -> str:
    return next((allowed for mark, allowed in _LIBRARY if mark.search(text)), text)


def _in_attempts(key: str, given: Sequence[Override]) -> tuple[str, Any]:
    """Return the whole path of a wrong key of an attempt, and its value. None: a file has set it."""
    name, types = key.partition(".")[0], get_type_hints(AttemptConfig)
    for one in reversed(given):
        if one.key == "attempts":
            entries = OverridesParser.create().parse_overrides([one.text])[0].value()
            for number, entry in enumerate(entries if isinstance(entries, list) else ()):
                if isinstance(entry, dict) and name in entry:
                    value = entry[name]
                    if name not in types or not _has_type(AttemptConfig, name, value):
                        return f"attempts[{number}].{key}", value
    return f"attempts[].{key}", None


def _has_type(kind: Any, name: str, value: object) -> bool:
    try:
        checked(kind(**{name: value}), kind)
    except ConfigError:
        return False
    return True


def _value_of(key: str, given: Sequence[Override]) -> str | None:
    """Return what the last override set at a key, above or below it, as the user typed it."""
    same = [one for one in given if one.key == key]
    near = [one for one in given if one.key and (_holds(one.key, key) or _holds(key, one.key))]
    return (same or near)[-1].value if near else None


def _holds(outer: str, inner: str) -> bool:
    return inner.startswith(outer) and inner[len(outer) : len(outer) + 1] in ("", ".", "[")


def _type_text(key: str, value: object) -> str:
    """Return which types a key may have, or nothing for a key of Hydra's. A value may have a unit."""
    annotation: Any = Config
    for name in key.replace("[", ".[").split("."):
        if name.startswith("["):
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) is dict:  # names of the user's
            annotation = get_args(annotation)[1]
            continue
        kinds = [one for one in _choices(annotation) if is_dataclass(one)]
        if kinds == [WorkloadConfig]:
            kinds = list(PATTERNS.values())
        hints = [get_type_hints(one) for one in kinds]
        annotation = next((one[name] for one in hints if name in one), None)
    types = [get_origin(one) or one for one in _choices(annotation)]
    if PolicyConfig in types:
        return f"{POLICY_FORM}. Write {key}.target=my_rules:MyRule, or policy=NAME for one of gpusim's own"
    if any(is_dataclass(one) for one in types):
        return "must hold names and values, one for each of its keys"
    if float in types and int in types:
        types.remove(int)
    names = [NAMES[one] for one in types if one in NAMES]
    allowed = f"must be {' or '.join(names)}" if names else ""
    quantity = read_quantity(str(value))
    if allowed and quantity and str not in types:
        allowed += " without a unit"
        if key.endswith("downtime_limit") and quantity.dimension == "time":
            allowed += f", in ms. Did you mean {quantity.number * 1000:.0f}?"
    return allowed


def _choices(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _of_file(error: BaseException, source: str, preset: Override | None) -> ConfigError:
    """Return that a file of the user's cannot be read."""
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is not None:
        why = f"is no YAML (line {mark.line + 1}): {error.problem}"  # type: ignore[attr-defined]
        return ConfigError("file", mark.name, why, "wrong_format")
    reason = getattr(error, "strerror", None) or describe(error)
    name = getattr(error, "filename", None)
    if name is None and preset is not None:
        return refusal(preset, f"its file cannot be read: {reason}", "wrong_format")
    return ConfigError("file", name or source, f"cannot be read: {reason}", "wrong_format")


def _of_overrides(
    error: BaseException, given: Sequence[Override], folders: Sequence[Path]
) -> ConfigError:
    """Return an error that names no key, after a search for the override that causes it."""
    text = _text(error)
    for one in given:
        found = _fault_of(one, folders)
        if found is not None and not (one.key and isinstance(error, HydraException)):
            return found
    named = [one for one in given if one.text and (one.text in str(error))]
    of_key = [
        one
        for one in given
        if re.search(rf"'{re.escape(one.key)}\b|\b{re.escape(one.key)}\.? ", text)
    ]
    # "Could not delete ... 'vm.x'" is about ~vm.x and not about vm=PRESET.
    of_key.sort(key=lambda one: (one.text.startswith("~") and "delet" in text, len(one.key)))
    named += reversed(of_key)
    if len(given) == 1 and isinstance(error, OmegaConfBaseException | HydraException | ValueError):
        named += given
    if not named and isinstance(error, AttributeError | TypeError):
        named += [one for one in given if one.key.startswith("hydra.")]
        if named:
            return refusal(named[-1], "is nothing that Hydra can use. Remove it", "not_composed")
    if not named and text.startswith("Config group override must be"):
        named += [one for one in given if one.value == "null" and "/" in one.key]
    culprit = named[0] if named else None
    if isinstance(error, InterpolationResolutionError):
        wanted = next((one for one in given if "${" in one.text), culprit)
        return refusal(wanted, f"cannot be resolved: {describe(error)}", "wrong_reference")
    if isinstance(error, OmegaConfBaseException) and culprit:
        allowed = _type_text(culprit.key, culprit.value)
        if allowed:
            return refusal(culprit, allowed, "wrong_type")
    for start, code, allowed in _BY_TEXT:
        if text.startswith(start):
            return refusal(culprit, allowed, code)
    if re.match(r"Could not override|Override .* looks like a config group", text) and culprit:
        hints = nearest_keys(culprit.key, folders, culprit.value)
        return refusal(culprit, sentences("no such key or group", *hints), "unknown_key")
    shown = describe(error)
    known = _library_text(shown)
    allowed = f"cannot be composed: {shown}" if known == shown else known
    return refusal(culprit, allowed, "not_composed")


def _fault_of(given: Override, folders: Sequence[Path]) -> ConfigError | None:
    """Return what is wrong with one override for itself."""
    if not given.key:
        return refusal(given, f"has no key. {_WRITE}", "wrong_format")
    try:
        value = OverridesParser.create().parse_overrides([given.text])[0].value()
    except RecursionError:
        return refusal(given, "has too many levels", "too_deep")
    except OverrideParseException as error:
        return _syntax(error)
    except ValueError:  # of int()
        return refusal(given, "holds a number of too many digits", "wrong_format")
    if given.key not in preset_groups(folders):
        return None
    names = value if isinstance(value, list) else [value]
    if all(isinstance(name, str) for name in names):
        return None
    return refusal(given, _group_text(given, folders), "unknown_choice")


def _group_text(given: Override, folders: Sequence[Path]) -> str:
    group, name = given.key, given.value or ""
    text = _presets_text(group, name, preset_names(group, folders))
    keys = [key for key in keys_of(Config) if key.startswith(f"{group}.")]
    if not keys:
        return text
    return sentences(text, f"To set a key of the group, write its name, such as {keys[0]}={name}")
