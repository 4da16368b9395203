# %% [markdown]
# # Write a throttle rule of your own
#
# This example replaces QEMU's throttle rule with a class and compares both. It needs only gpusim.
# Run it as a script, or open it as a notebook.

# %%
from dataclasses import replace

from gpusim import (
    Config,
    LinkConfig,
    MigrationConfig,
    PolicyConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.policies import Parameters, Period, ThrottleRule

# %% [markdown]
# ## The rule
#
# QEMU raises the throttle at every second high period. `Impatient` raises it at every high period, in steps
# of its own. gpusim calls `on_period` when a sync closes a period. The rule returns
# True if it set `percent`.


# %%
class Impatient(ThrottleRule):
    """Raise the throttle by `step` percentage points at every high period."""

    def __init__(self, parameters: Parameters, step: int = 20) -> None:
        super().__init__(parameters)
        self.step = step

    def on_period(self, period: Period) -> bool:
        share = self.parameters.throttle_trigger_threshold
        if period.dirty_bytes <= period.xfer_bytes * share // 100:
            return False
        self.percent = min(self.percent + self.step, self.parameters.max_cpu_throttle)
        return True


# %% [markdown]
# ## One guest, both rules
#
# The guest writes to 2 GiB of its 4 GiB, faster than the link sends.

# %%
guest = Config(
    vm=VmConfig(memory="4GiB", vcpus=4),
    workload=WriterConfig(working_set="2GiB", page_writes_per_s=2e5),
    link=LinkConfig(bandwidth="4Gbit/s"),
    migration=MigrationConfig(version="qemu_9_2"),
)
rule = PolicyConfig(target=f"{Impatient.__module__}:Impatient", args={"step": 30})
impatient = replace(guest, migration=replace(guest.migration, throttle_rule=rule))

# %%
for name, config in {"QEMU's rule": guest, "Impatient": impatient}.items():
    summary = simulate(config).summary
    print(
        f"{name:12} {summary.verdict} in {summary.total_time_s:.1f} s, "
        f"throttle up to {summary.max_throttle_percent} %, "
        f"guest CPU lost {summary.guest_cpu_lost_percent:.1f} %"
    )
