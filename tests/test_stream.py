"""Do no two streams of a run have the same key, and are the numbers those of their laws?"""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpusim
from gpusim.guest.reaper import first_wake_ns
from gpusim.pages.draw import ZERO_DRAW
from gpusim.stream import (
    MOST_DRAWS,
    WRITER_SHIFT,
    Drawn,
    Purpose,
    Stream,
    draw_generator,
    key_of,
    key_of_draw,
)
from gpusim.units import NS_PER_S

PACKAGE = Path(gpusim.__file__).parent
IN_A_RUN = ("config", "engine", "guest", "pages", "policies", "qemu", "sender")
GENERATORS = {"Philox", "PCG64", "MT19937", "SFC64", "SeedSequence", "RandomState", "default_rng"}

WRITERS = st.integers(0, 2**32)
DRAWS = st.integers(0, MOST_DRAWS - 1)
USES = st.one_of(
    st.tuples(WRITERS, st.sampled_from(Purpose)),
    st.tuples(st.sampled_from(Drawn), DRAWS, st.integers(0, 1)),
)


def second_number(use: tuple[int, ...]) -> int:
    """Return the number that tells the streams of a seed apart."""
    key = key_of(1, use[0], Purpose(use[1])) if len(use) == 2 else key_of_draw(1, *use)  # type: ignore[arg-type]
    return int(key[1])


@given(st.sets(USES, min_size=2, max_size=8))
def test_no_two_uses_share_a_key(uses: set[tuple[int, ...]]) -> None:
    assert len({second_number(use) for use in uses}) == len(uses)


def test_the_keys_of_a_small_run_are_all_different() -> None:
    """Draws 0 and 1, and writer 0, once had the keys of a latency, of the mutex and of the reaper."""
    writers = list(product(range(64), Purpose))
    draws = [
        (drawn, first + number, step)
        for drawn in Drawn
        for first in (0, ZERO_DRAW)
        for number in range(512)
        for step in (0, 1)
    ]
    assert len({second_number(use) for use in (*writers, *draws)}) == len(writers) + len(draws)


def test_every_purpose_fits_below_the_number_of_its_writer() -> None:
    assert max(Purpose) < 2**WRITER_SHIFT
    assert len(set(Purpose)) == len(Purpose.__members__)


def test_one_module_makes_every_generator_of_a_run() -> None:
    """A generator made elsewhere could have a key of another one."""
    found = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for package in IN_A_RUN
        for path in (PACKAGE / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in GENERATORS)
        or (isinstance(node, ast.Import) and "random" in [alias.name for alias in node.names])
        or (isinstance(node, ast.ImportFrom) and str(node.module).endswith("random"))
    }
    assert not found


def test_parts_of_a_run_draw_different_numbers() -> None:
    """The reaper's phase, the mutex, the sweep's phase and both latencies of one seed."""
    of_purposes = [Stream(3, 0, purpose).raw(4) for purpose in Purpose]
    of_draws = [
        draw_generator(3, drawn, draw, step).bit_generator.random_raw(4)
        for drawn, draw, step in product(Drawn, range(4), (0, 1))
    ]
    first = {int(numbers[0]) for numbers in [*of_purposes, *of_draws]}
    assert len(first) == len(of_purposes) + len(of_draws)


def test_the_reaper_wakes_within_its_first_second() -> None:
    times_s = np.array([first_wake_ns(seed) for seed in range(2000)]) / NS_PER_S
    assert times_s.min() > 0
    assert times_s.max() <= 1
    assert np.histogram(times_s, 4, (0, 1))[0] == pytest.approx([500] * 4, abs=80)  # four sigma


@pytest.mark.parametrize("chance", [1.0, 0.972, 0.4, 0.077])
def test_tries_up_to_the_first_that_succeeds_are_geometric(chance: float) -> None:
    stream = Stream(1, 0, Purpose.MUTEX_WINS)
    tries = np.array([stream.geometric(chance) for _ in range(4000)])
    assert tries.min() == 1
    for most in (1, 2, 5):
        share = 1 - (1 - chance) ** most
        sigma = np.sqrt(share * (1 - share) / len(tries))
        assert (tries <= most).mean() == pytest.approx(share, abs=4 * sigma + 1e-12)
