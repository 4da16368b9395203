"""Do the members of a prediction cover each quantity evenly, and independently of the others?"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.predict.strata import Strata

COUNT = 32


def draws(quantity: str, count: int = COUNT, seed: int = 1) -> np.ndarray:
    return np.array(
        [Strata(seed=seed, place=place, count=count).uniform(quantity) for place in range(count)]
    )


@pytest.mark.parametrize("count", [1, 2, COUNT])
def test_each_member_has_a_stratum_of_its_own(count: int) -> None:
    found = draws("speed", count)
    assert sorted(int(one * count) for one in found) == list(range(count))


def test_quantities_and_seeds_differ_and_repeat() -> None:
    assert (draws("speed") == draws("speed")).all()
    assert (draws("speed") != draws("place")).any()
    assert (draws("speed") != draws("speed", seed=2)).any()


def test_quantities_are_independent() -> None:
    """Over 200 seeds, correlations are no larger than those of independent orders."""
    found = [np.corrcoef(draws("a", seed=n), draws("b", seed=n))[0, 1] for n in range(200)]
    assert abs(np.mean(found)) < 4 / np.sqrt(200 * (COUNT - 1))
    assert np.std(found) == pytest.approx(1 / np.sqrt(COUNT - 1), rel=0.25)


def test_one_member_alone_is_uniform() -> None:
    found = [Strata(seed=n).uniform("speed") for n in range(400)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)
    assert np.std(found) == pytest.approx(np.sqrt(1 / 12), rel=0.1)
