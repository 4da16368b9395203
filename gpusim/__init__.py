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
        SequentialConfig,
        TrackingConfig,
        VmConfig,
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
    "Progress",
    "Result",
    "SequentialConfig",
    "Summary",
    "SyncRecord",
    "TimelineSample",
    "TrackingConfig",
    "VmConfig",
    "WorkloadConfig",
    "WriterConfig",
    "ZipfConfig",
    "__version__",
    "evacuate",
    "simulate",
    "simulate_many",
]

_MODULES = {  # a module is imported when one of its names is used first
    "gpusim.config.schema": (
        "AttemptConfig",
        "BackendConfig",
        "Config",
        "EvacuationConfig",
        "GuestConfig",
        "HotColdConfig",
        "LimitConfig",
        "LinkConfig",
        "MigrationConfig",
        "MixConfig",
        "PolicyConfig",
        "SequentialConfig",
        "TrackingConfig",
        "VmConfig",
        "WorkloadConfig",
        "WriterConfig",
        "ZipfConfig",
    ),
    "gpusim.engine.attempts": ("simulate",),
    "gpusim.engine.evacuation": ("evacuate",),
    "gpusim.engine.records": (
        "Attempt",
        "EvacuatedGuest",
        "Evacuation",
        "EvacuationProgress",
        "EvacuationSummary",
        "Event",
        "Progress",
        "Result",
        "Summary",
        "SyncRecord",
        "TimelineSample",
    ),
    "gpusim.errors": ("ConfigError",),
    "gpusim.explore.workers": ("simulate_many",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a public name. Import its module at its first use, so that `import gpusim` is fast."""
    if name == "Knot":  # the former name
        name = "TimelineSample"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
