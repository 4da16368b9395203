"""A predicted migration as a Hydra experiment: `gpusim --config-dir FOLDER experiment=NAME`.

Owns the translation of a Config back into the keys that make it. It knows which keys differ from the
default run; what they mean is config.py's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from gpusim.app import composed_config
from gpusim.config import PATTERNS, Config

NAME = "fitted"  # of the experiment, and of its file
HEAD = """\
# @package _global_
# gpusim --config-dir {folder} experiment={name}
# {told}
defaults:
  - override /workload: base_{pattern}

"""


def experiment_yaml(config: Config, told: str, folder: str = "mine", name: str = NAME) -> str:
    """The text of `FOLDER/experiment/NAME.yaml`; composing it gives `config`.

    Args:
        config: of one migration.
        told: what it is, in a line.
        folder: that `--config-dir` shall name.
        name: of the experiment.
    """
    pattern = next(name for name, kind in PATTERNS.items() if type(config.workload) is kind)
    base = composed_config([f"workload=base_{pattern}"])
    keys = _differing(asdict(config), asdict(base))
    line = " ".join(told.split())
    text = HEAD.format(folder=folder, name=name, told=line, pattern=pattern)
    return text + (OmegaConf.to_yaml(OmegaConf.create(keys)) if keys else "")


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The keys of `ours`, however deep, whose values are other than in `theirs`."""
    found = {}
    for key, value in ours.items():
        other = theirs.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := _differing(value, other):
                found[key] = inner
        elif value != other:
            found[key] = value
    return found
