"""When are two runs the same run? One hash of all that decides what a run writes.

That is the config without what only says where and how to compute it, gpusim's version, its source (an
editable install changes without a new version) and that of a user's rules. A sweep that is started again computes
nothing for which a run with the same hash is there.
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
from gpusim.version import __version__

# What the results of a run that has ended do not depend on.
_DECIDES_NOTHING = ("backend", "dry_run", "plot", "objective")


def run_hash(config: Config) -> str:
    """32 hexadecimal digits; runs that share them have the same results, byte for byte.

    The same migration written in another way, 1024GiB for 1TiB, has another hash.

    `limit.wall` does not count: a run that it stopped is incomplete, and never taken as done.
    """
    decides: dict[str, Any] = asdict(config)
    for key in _DECIDES_NOTHING:
        decides.pop(key, None)
    decides["limit"].pop("wall")
    source = [_source_hash(), *_sources_of_policies(config)]
    text = json.dumps([decides, __version__, *source], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sources_of_policies(config: Config) -> list[str]:
    found = sources_of(config.migration)
    for attempt in config.attempts:
        keys = getattr(attempt, "migration", None)  # an attempt that is none the run will refuse
        said = {name: keys[name] for name in KINDS if isinstance(keys, Mapping) and name in keys}
        try:
            found += sources_of(change_migration("migration", MigrationConfig(), said))
        except ConfigError as error:  # the run will say so
            found.append(str(error))
    return found


@cache
def _source_hash() -> str:
    """Of gpusim's Python and CUDA files, their names included."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.cu") for path in package.rglob(kind)):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
