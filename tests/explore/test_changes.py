"""Changes that a search may make to a config."""

from __future__ import annotations

import pytest

from gpusim.config.compose import composed_config
from gpusim.explore.changes import postcopy_start


@pytest.mark.parametrize(
    ("version", "start"),
    [
        ("qemu_10_2", "1pass"),
        ("qemu_11_1", "8.6s_per_gib"),  # its counted syncs say nothing: 1 GiB at 1 Gbit/s
    ],
)
def test_post_copy_starts_when_all_of_ram_was_sent_once(version: str, start: str) -> None:
    config = composed_config(["link=1gbit", f"migration={version}"])
    assert postcopy_start(config) == start
