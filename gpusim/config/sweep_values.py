"""How many runs a sweep has, counted before the first of them is prepared.

Hydra lists the values of every key and all runs first. A range of a billion values would take all
memory, and a pattern that fits no preset would start a sweep without runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from omegaconf import DictConfig

from gpusim.config.compose_errors import one_compose_error
from gpusim.config.override import refusal, split

MOST_RUNS = 100_000  # of a grid. Each is composed before the first begins, and gets a folder
GRID_SWEEPERS = (".BasicSweeper", ".BatchSweeper")  # classes that run every combination of values
_CALL = "Write values as KEY=A,B or KEY=range(1,10)"


def check_values(overrides: Sequence[str], loader: ConfigLoader) -> None:
    """Refuse values of a sweep that cannot be counted, and a pattern that fits no preset.

    Args:
        overrides: what the user typed.
        loader: knows the presets.

    Raises:
        ConfigError: there are such values, or an override cannot be parsed.
    """
    with one_compose_error(overrides):
        for one in OverridesParser.create().parse_overrides(list(overrides)):
            _count(one, loader)


def check_grid(sweeper: DictConfig, overrides: Sequence[str], loader: ConfigLoader) -> None:
    """Refuse a grid of too many runs. A sweeper that searches decides itself how many runs it has.

    Args:
        sweeper: the config's hydra.sweeper.
        overrides: what the user typed.
        loader: knows the presets.

    Raises:
        ConfigError: as for `check_values`, or there are more than MOST_RUNS runs.
    """
    if not str(sweeper.get("_target_")).endswith(GRID_SWEEPERS):
        return
    texts = [f"{key}={values}" for key, values in (sweeper.get("params") or {}).items()]
    texts += overrides
    with one_compose_error(texts):
        parsed = OverridesParser.create().parse_overrides(texts)
        swept = {one.get_key_element(): (one, _count(one, loader)) for one in parsed}
    runs = math.prod(count for _, count in swept.values())
    if runs <= MOST_RUNS:
        return
    longest, count = max(swept.values(), key=lambda found: found[1])
    values = f"{count:.0f} values" if count < MOST_RUNS**2 else "too many values to count"
    whole = "" if count == runs else f", which makes {runs:.3g} runs with those of the other keys"
    allowed = f"has {values}{whole}. A sweep has at most {MOST_RUNS} runs. Name fewer values"
    raise refusal(split(str(longest.input_line)), allowed, "out_of_range")


def _count(given: Override, loader: ConfigLoader) -> float:
    """Return how many values an override gives its key. A range without an end has infinitely many.

    Raises:
        ConfigError: it has none.
    """
    if not given.is_discrete_sweep():
        return 1
    values: Any = given.value()  # Hydra does not declare that it may be a Glob
    if isinstance(values, Glob):
        names = loader.get_group_options(given.key_or_group, ObjectType.CONFIG)
        if not values.filter(names):
            raise refusal(split(str(given.input_line)), _glob_text(given, names), "unknown_choice")
        return len(values.filter(names))
    count = _count_range(values) if isinstance(values, RangeSweep) else len(values.list)
    if not count > 0:
        allowed = f"holds no values that can be counted. {_CALL}"
        raise refusal(split(str(given.input_line)), allowed, "wrong_format")
    return count


def _count_range(values: RangeSweep) -> float:
    start, stop, step = values.start, values.stop, values.step
    if start is None or stop is None or not step:
        return 0
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return max(0, -((start - stop) // step))
    steps = (stop - start) / step
    return steps if math.isinf(steps) or math.isnan(steps) else max(0, math.ceil(steps))


def _glob_text(given: Override, names: Sequence[str]) -> str:
    if names:
        return f"fits no preset. {given.key_or_group} has {', '.join(names)}"
    return f"glob() is for groups of presets, such as vm, and {given.key_or_group} is none. {_CALL}"
