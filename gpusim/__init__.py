"""gpusim simulates QEMU live migration page by page. It runs on a GPU or a CPU.

>>> from gpusim import Config, VmConfig, WriterConfig, simulate
>>> result = simulate(Config(vm=VmConfig("1GiB"), workload=WriterConfig(working_set_percent=5.0)))
>>> result.summary.verdict
'converged'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpusim.version import __version__

if TYPE_CHECKING:
    from gpusim.config.schema import (
        AttemptConfig,
        BackendConfig,
        Config,
        EvacuationConfig,
        GuestConfig,
        HotColdConfig,
        LimitConfig,
        LinkConfig,
        MigrationConfig,
        MixConfig,
        PolicyConfig,
        PostcopyConfig,
        SequentialConfig,
        TrackingConfig,
        VmConfig,
        WithoutReplacementConfig,
        WorkloadConfig,
        WriterConfig,
        ZipfConfig,
    )
    from gpusim.engine.attempts import simulate
    from gpusim.engine.evacuation import evacuate
    from gpusim.engine.records import (
        Attempt,
        EvacuatedGuest,
        Evacuation,
        EvacuationProgress,
        EvacuationSummary,
        Event,
        Progress,
        Result,
        Summary,
        SyncRecord,
        TimelineSample,
    )
    from gpusim.errors import ConfigError
    from gpusim.explore.workers import simulate_many
    from gpusim.version import __version__

    Knot = TimelineSample

__all__ = [
    "Attempt",
    "AttemptConfig",
    "BackendConfig",
    "Config",
    "ConfigError",
    "EvacuatedGuest",
    "Evacuation",
    "EvacuationConfig",
    "EvacuationProgress",
    "EvacuationSummary",
    "Event",
    "GuestConfig",
    "HotColdConfig",
    "Knot",
    "LimitConfig",
    "LinkConfig",
    "MigrationConfig",
    "MixConfig",
    "PolicyConfig",
    "PostcopyConfig",
    "Progress",
    "Result",
    "SequentialConfig",
    "Summary",
    "SyncRecord",
    "TimelineSample",
    "TrackingConfig",
    "VmConfig",
    "WithoutReplacementConfig",
    "WorkloadConfig",
    "WriterConfig",
    "ZipfConfig",
    "__version__",
    "evacuate",
    "simulate",
    "simulate_many",
]

# The homes of the public names. A module is imported when a name is not in those before it.
_MODULES = (
    "gpusim.errors",
    "gpusim.config.schema",
    "gpusim.engine.records",
    "gpusim.engine.attempts",
    "gpusim.engine.evacuation",
    "gpusim.explore.workers",
)


def __getattr__(name: str) -> Any:
    """Return a public name. Import its module at its first use, so that `import gpusim` is fast."""
    if name == "Knot":  # the former name
        name = "TimelineSample"
    for home in _MODULES if name in __all__ else ():
        module = import_module(home)
        if hasattr(module, name):
            found = globals()[name] = getattr(module, name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
