"""One hash of everything that decides the results of a run.

The hash covers the config without the keys that only say where and how to compute. It covers
gpusim's version and source, because an editable install changes without a new version. It covers
the source of a user's rules, too. A sweep that starts again skips each run whose hash it finds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from gpusim.config.migration import change_migration
from gpusim.config.plugins import KINDS, sources_of
from gpusim.config.schema import Config, MigrationConfig
from gpusim.errors import ConfigError
from gpusim.reading import read_bytes
from gpusim.version import __version__

# The results of a run that has ended do not depend on these keys.
_NO_EFFECT = ("backend", "dry_run", "plot", "objective")


def run_hash(config: Config) -> str:
    """Return 32 hexadecimal digits. Runs with the same digits have the same results to the byte.

    The same migration written in another way, such as 1024GiB for 1TiB, has another hash.
    `limit.wall` does not count: a run that it stopped is incomplete and never counts as done.
    """
    decides: dict[str, Any] = asdict(config)
    for key in _NO_EFFECT:
        decides.pop(key, None)
    decides["limit"].pop("wall")
    source = [_source_hash(), *_sources_of_policies(config)]
    text = json.dumps([decides, __version__, *source], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sources_of_policies(config: Config) -> list[str]:
    found = sources_of(config.migration)
    for attempt in config.attempts:
        keys = getattr(attempt, "migration", None)  # the run refuses an attempt of another type
        policies = {
            name: keys[name] for name in KINDS if isinstance(keys, Mapping) and name in keys
        }
        try:
            found += sources_of(change_migration("migration", MigrationConfig(), policies))
        except ConfigError as error:  # the run will show it
            found.append(str(error))
    return found


@cache
def _source_hash() -> str:
    """Return a hash of gpusim's Python and CUDA files and their names."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(
        path for kind in ("*.py", "*.cu") for path in package.rglob(kind) if path.is_file()
    ):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(read_bytes(path))
    return digest.hexdigest()
