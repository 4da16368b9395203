"""gpusim simulates QEMU live migration page by page. It runs on a GPU or a CPU.

>>> from gpusim import Config, VmConfig, WriterConfig, simulate
>>> result = simulate(Config(vm=VmConfig("1GiB"), workload=WriterConfig(working_set_percent=5.0)))
>>> result.summary.verdict
'converged'
"""

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

Knot = TimelineSample  # the former name

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
