"""Every run is audited, also in the processes that tests start.

`pytest -m gpu` collects the parity suite alone: the other tests import Hydra and Hypothesis.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.one_process import PLACES, one_process

PARITY = Path(__file__).parent / "parity"

os.environ["GPUSIM_AUDIT"] = "1"
# nohup ignores SIGHUP, and a shell ignores SIGINT for what it starts with &. Children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what a bare CUDA machine could not even import."""
    if config.option.markexpr != "gpu":
        return None
    related = collection_path in PARITY.parents or collection_path.is_relative_to(PARITY)
    return None if related else True


def pytest_collection_finish() -> None:
    """Spare the garbage collector all modules and tests, which live to the end."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow tests, the longest first, so that none of them runs alone at the end."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is None,
            "/studies/" not in item.path.as_posix(),
        )
    )


@pytest.fixture(autouse=True, scope="session")
def _pools_in_one_process() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for place in PLACES:
            patch.setattr(place, one_process)
        yield patch


@pytest.fixture
def real_processes(_pools_in_one_process: pytest.MonkeyPatch) -> Iterator[None]:
    """Pools start processes during the test."""
    _pools_in_one_process.undo()
    yield
    for place in PLACES:
        _pools_in_one_process.setattr(place, one_process)
