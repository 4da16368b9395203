"""Two runs are the same run if their hashes are equal."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from gpusim import Config
from gpusim.config.run_hash import run_hash

DECIDES_NOTHING = {"dry_run", "plot", "objective", "backend.name", "backend.threads", "limit.wall"}


def keys(part: Any, prefix: str = "") -> list[str]:
    found = []
    for field in fields(part):
        value = getattr(part, field.name)
        name = prefix + field.name
        found += keys(value, f"{name}.") if is_dataclass(value) else [name]
    return found


def other(value: Any) -> Any:
    return not value if isinstance(value, bool) else "another"


@pytest.mark.parametrize("key", keys(Config()))
def test_every_key_that_decides_something_counts(key: str) -> None:
    config = copy.deepcopy(Config())
    *groups, name = key.split(".")
    part: Any = config
    for group in groups:
        part = getattr(part, group)
    setattr(part, name, other(getattr(part, name)))
    assert (run_hash(config) == run_hash(Config())) == (key in DECIDES_NOTHING)


def test_version_and_source_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_hash(Config())
    monkeypatch.setattr("gpusim.config.run_hash.__version__", "9.9.9")
    newer = run_hash(Config())
    monkeypatch.setattr("gpusim.config.run_hash._source_hash", lambda: "another")
    assert len({before, newer, run_hash(Config())}) == 3


def test_hash_leaves_the_config_as_it_was() -> None:
    config = Config()
    run_hash(config)
    assert config == Config()
