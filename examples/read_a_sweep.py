# %% [markdown]
# # Read a sweep with pandas
#
# This example runs a small sweep, makes its tables with gpusim-collect and reads them with pandas.
# It needs `pip install -e '.[plot]' pandas`. Run it as a script, or open it as a notebook.

# %%
import subprocess
from pathlib import Path

import pandas as pd

SWEEP = Path("outputs/multirun/example")

# %% [markdown]
# ## Run the sweep
#
# Twelve small VMs: two links, two versions of QEMU and three seeds. If you run this cell again, gpusim
# computes only what is missing.

# %%
subprocess.run(
    [
        *("gpusim", "-m", "vm=small_16gib", "workload=uniform", "plot=false"),
        *("link=10gbit,25gbit", "migration=qemu_9_1,qemu_9_2", "seed=1,2,3"),
        f"hydra.sweep.dir={SWEEP}",
    ],
    check=True,
)
subprocess.run(["gpusim-collect", str(SWEEP)], check=True)

# %% [markdown]
# ## Read one row per run
#
# `runs.csv` has the swept keys and the figures of summary.json. The reference of summary.json lists their
# units and meanings.

# %%
runs = pd.read_csv(SWEEP / "runs.csv")
figures = ["total_time_s", "downtime_ms", "guest_cpu_lost_percent"]
by_setting = runs.groupby(["link.bandwidth", "migration.version"])[figures]
print(by_setting.median().round(2).to_string())

# %% [markdown]
# ## Read the syncs of one run
#
# `syncs.csv` has one row per dirty sync. The column `kind` tells the fallback syncs from the others.

# %%
folder = next(path.parent for path in sorted(SWEEP.glob("*/syncs.csv")))
syncs = pd.read_csv(folder / "syncs.csv")
print(syncs[["time_s", "kind", "remaining_bytes", "cpu_throttle_percentage"]].head(8))
