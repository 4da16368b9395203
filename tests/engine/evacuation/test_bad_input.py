"""Is a wrong evacuation refused in one line that names the full key?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import Config, ConfigError, GuestConfig, VmConfig, WriterConfig, evacuate
from tests.engine.evacuation.hosts import host, idle

WEB = {"web": idle("64MiB")}


def with_link(config: Config, **keys: Any) -> Config:
    return replace(config, link=replace(config.link, **keys))


BAD: dict[str, Config] = {
    "evacuation.at_a_time": host(WEB, 0),
    "evacuation.at_a_time ": host(WEB, 1.5),  # type: ignore[arg-type]
    "evacuation.at_a_time  ": with_link(host({"web": idle("64MiB", 9)}, 9), bandwidth="8Mbit/s"),
    "evacuation.order": host(WEB, 1, "fastest_first"),
    "evacuation.guests": host({}),
    "evacuation.guests ": host({"../web": idle("64MiB")}),
    "evacuation.guests  ": host({"a": idle("64MiB", 2), "a-1": idle("64MiB")}),
    "evacuation.guests.web.count": host({"web": idle("64MiB", 0)}),
    "evacuation.guests.web.vm.memory": host({"web": idle("0")}),
    "evacuation.guests.b.workload.working_set_percent": host(
        {"a": idle("64MiB"), "b": GuestConfig(workload=WriterConfig(working_set_percent=110.0))}
    ),
    "link.recorded": with_link(host(WEB), recorded=[[0, 0], [1, 10**8]]),
    "link.changes": with_link(host(WEB), changes=[[5, "1GB/s"], [1, "2GB/s"]]),
    "migration.downtime_limit": host(WEB, downtime_limit=-1),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_value_names_its_key(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evacuate(BAD[key])
    assert caught.value.key == key.strip()
    assert "\n" not in str(caught.value)


def test_nothing_is_simulated_before_the_last_guest_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpusim.engine.evacuation.Migration", lambda *args, **keys: 1 / 0)
    with pytest.raises(ConfigError, match=r"^evacuation.guests.z.vm.memory = 0"):
        evacuate(host({**WEB, "z": idle("0")}))


def test_the_error_of_a_guest_says_whose_keys_it_names() -> None:
    zeros = GuestConfig(vm=VmConfig("64MiB", zero_percent=5.0, zero_ranges=[["1MiB", "2MiB"]]))
    with pytest.raises(ConfigError) as caught:
        evacuate(host({"a": zeros}))
    assert caught.value.key == "evacuation.guests.a.vm.zero_percent"
    assert caught.value.code == "contradiction"
    assert caught.value.message.endswith("(vm and workload are those of evacuation.guests.a)")


def test_the_largest_guest_must_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.pages.backends.free_bytes", lambda name: 500_000_000)
    with pytest.raises(ConfigError, match=r"^evacuation.guests.big.vm.memory = 24TiB: needs"):
        evacuate(host({**WEB, "big": idle("24TiB")}))
