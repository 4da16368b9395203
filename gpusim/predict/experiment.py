"""A predicted migration as a Hydra experiment: `gpusim --config-dir FOLDER experiment=NAME`.

Owns the translation of a Config back into the keys that make it: those that differ from the default
run. What they mean is config.py's.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gpusim.config.compose import composed_config
from gpusim.config.schema import PATTERNS
from gpusim.predict import prediction_text
from gpusim.predict.prediction import Prediction
from gpusim.results.run_files import EXPERIMENT

HEAD = """\
# @package _global_
# {where}gpusim --config-dir {folder} experiment={name}
# {told}
defaults:
  - override /workload: base_{pattern}

"""


def experiment_yaml(prediction: Prediction, path: Path | None = None) -> str:
    """The middle member's migration as the text of `FOLDER/experiment/NAME.yaml`.

    Composing it gives its config, with pictures; any key may be given another value, or swept over.

    Args:
        prediction: whose middle member it is.
        path: of the file, which its first comment names; None: `mine/experiment/fitted.yaml`.
    """
    config = prediction.median_member.config
    path, where = path or Path("mine", EXPERIMENT), ""
    if path.parent.name != "experiment":  # where Hydra would not find it
        path = Path("mine", "experiment", path.name)
        where = f"As {path}: "
    pattern = next(name for name, kind in PATTERNS.items() if type(config.workload) is kind)
    base = composed_config([f"workload=base_{pattern}"])
    keys = _differing(asdict(config), asdict(base))
    keys.pop("plot", None)  # members have none, as nobody would look at them
    told = f"{prediction_text.subject(prediction)}: the middle one of {len(prediction.members)} simulated"
    folder = shlex.quote(str(path.parent.parent))
    text = HEAD.format(where=where, folder=folder, name=path.stem, told=told, pattern=pattern)
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
