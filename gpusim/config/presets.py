"""The files of conf/: where they lie, and which presets each group has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpusim.reading import read_yaml


def conf_folder(name: str = "conf") -> Path:
    """Return the absolute folder `conf` or `conf_record`: the wheel's copy or the working tree's."""
    package = Path(__file__).resolve().parents[1]
    return next(folder / name for folder in (package, package.parent) if (folder / name).is_dir())


def preset_groups(folders: Sequence[Path] = ()) -> list[str]:
    """Return the groups that have presets, such as "link". Hydra's own groups are left out.

    Args:
        folders: of the user's, with more presets.
    """
    found = {
        path.name
        for folder in (conf_folder(), *folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir() and path.name != "hydra"
    }
    return sorted(found)


def preset_names(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return the names of a group's presets.

    Args:
        group: such as "link".
        folders: of the user's, with more presets.
    """
    paths = (
        path for folder in (conf_folder(), *folders) for path in (folder / group).glob("*.y*ml")
    )
    return sorted({path.stem for path in paths})


def preset_keys(group: str, name: str) -> list[str]:
    """Return the top-level keys that one of gpusim's own presets sets.

    Args:
        group: such as "policy".
        name: of the preset.
    """
    keys = read_yaml(conf_folder() / group / f"{name}.yaml")
    assert isinstance(keys, dict)
    return list(keys)
