"""The background behind jumps, against a model of single pages."""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.pages.missing import Found, MissingPages

COSTS = 1.0, 1.0
PAIRS, SMALL, LARGE = 500, 4, 50  # hot pieces of 4 pages with 50 others between them


def pieces() -> MissingPages:
    sizes = np.tile([SMALL, LARGE], PAIRS)
    found = Found(
        missing=sizes.astype(float),
        normal=sizes.astype(float),
        zero=np.zeros(2 * PAIRS),
        runs=np.zeros(1, np.int64),
    )
    return MissingPages(found, sizes, 1)


def sent_naively(jumps: int, each: int, seed: int) -> float:
    """Return how many pages of the hot pieces go, if each jump to one sends so many pages behind it."""
    random = np.random.default_rng(seed)
    total = PAIRS * (SMALL + LARGE)
    missing = np.ones(total, np.bool_)
    for pair in random.integers(0, PAIRS, jumps):
        page = int(pair) * (SMALL + LARGE) + int(random.integers(0, SMALL))
        ahead = np.flatnonzero(missing[page:])[:each]
        missing[page + ahead] = False
    return PAIRS * SMALL - float(missing.reshape(PAIRS, -1)[:, :SMALL].sum())


@pytest.mark.parametrize(("jumps", "each"), [(20, 30), (100, 30), (250, 30), (40, 200)])
def test_a_jump_does_not_send_the_hot_pieces_that_nobody_asked_for(jumps: int, each: int) -> None:
    missing = pieces()
    starts = np.tile([jumps / PAIRS, 0.0], PAIRS)
    normal, zero = missing.send_behind(starts, float(jumps * each), COSTS)
    assert (normal, zero) == (pytest.approx(jumps * each), 0)
    naive = np.mean([sent_naively(jumps, each, seed) for seed in range(20)])
    hot = PAIRS * SMALL - missing.missing[::2].sum()
    assert hot == pytest.approx(naive, rel=0.35)


def test_without_a_jump_the_background_goes_on_in_order() -> None:
    missing = pieces()
    assert missing.send_behind(np.zeros(2 * PAIRS), 100.0, COSTS) == (pytest.approx(100), 0)
    assert missing.missing[:4].tolist() == [0, 0, 0, LARGE - (100 - SMALL - LARGE - SMALL)]


def test_everything_is_sent_if_the_budget_suffices() -> None:
    missing = pieces()
    total = missing.total
    starts = np.zeros(2 * PAIRS)
    starts[700] = 0.3
    assert missing.send_behind(starts, 2 * total, COSTS)[0] == pytest.approx(total)
    assert missing.total == pytest.approx(0)
