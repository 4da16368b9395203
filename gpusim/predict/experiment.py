"""A predicted migration as a Hydra experiment: `gpusim --config-dir FOLDER experiment=NAME`.

Owns the translation of a Config into the keys that differ from the default run.
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
# {save}gpusim --config-dir {folder} experiment={name}
# {subject}: the median of {members} simulated migrations
defaults:
  - override /workload: base_{pattern}

"""


def experiment_yaml(prediction: Prediction, path: Path | None = None) -> str:
    """Return the median migration as the text of `FOLDER/experiment/NAME.yaml`.

    Composing the experiment gives the config of the median migration with `plot` on.

    Args:
        prediction: the prediction.
        path: of the file. Its first comment names it. None: `mine/experiment/fitted.yaml`.
    """
    config = prediction.median_member.config
    path, save = path or Path("mine", EXPERIMENT), ""
    if path.parent.name != "experiment":  # Hydra finds experiments only in such a folder
        path = Path("mine", "experiment", path.name)
        save = f"Save as {path}: "
    pattern = next(name for name, kind in PATTERNS.items() if type(config.workload) is kind)
    base = composed_config([f"workload=base_{pattern}"])
    keys = _differing(asdict(config), asdict(base))
    keys.pop("plot", None)  # it is off in members only, because nobody sees their pictures
    text = HEAD.format(
        save=save,
        folder=shlex.quote(str(path.parent.parent)),
        name=path.stem,
        subject=prediction_text.subject(prediction),
        members=len(prediction.members),
        pattern=pattern,
    )
    return text + (OmegaConf.to_yaml(OmegaConf.create(keys)) if keys else "")


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of `ours`, at any depth, that have another value in `theirs`."""
    found = {}
    for key, value in ours.items():
        other = theirs.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := _differing(value, other):
                found[key] = inner
        elif value != other:
            found[key] = value
    return found
