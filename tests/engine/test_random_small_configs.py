"""Does each random small config end in a result that the audit finds clean, or in ConfigError?"""

from __future__ import annotations

import contextlib

from gpusim import ConfigError, evacuate, simulate
from tests.engine.random_configs import make_config


def run_configs(numbers: range) -> None:
    """Run configs, which GPUSIM_AUDIT=1 audits. The tests' output names the one that failed."""
    for number in numbers:
        print(f"make_config({number})")
        config = make_config(number)
        run = simulate if config.evacuation is None else evacuate
        with contextlib.suppress(ConfigError):
            run(config)


def test_random_configs() -> None:
    run_configs(range(300))
