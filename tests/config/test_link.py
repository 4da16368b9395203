"""What a link costs if nobody stated it."""

from __future__ import annotations

import pytest

from gpusim import Config, ConfigError, LinkConfig, VmConfig
from gpusim.config.scenario import resolve


def non_ram_ms(vm: VmConfig, **link: float | str) -> float:
    made = resolve(Config(vm=vm, link=LinkConfig(**link)))  # type: ignore[arg-type]
    return made.link.non_ram_downtime_ns / 1e6


@pytest.mark.parametrize(
    ("vcpus", "vfio_devices", "published_ms"),
    [
        (0, 1, 74),  # stopping a VM of 32 GiB, whose vCPUs are not published
        (0, 2, 128),
        (384, 0, 268 + 270 + 144),  # stop, save and load
    ],
)
def test_the_downtime_beside_ram_is_that_of_its_source(
    vcpus: int, vfio_devices: int, published_ms: float
) -> None:
    vm = VmConfig("1GiB", vcpus=max(1, vcpus), vfio_devices=vfio_devices)
    assert non_ram_ms(vm) == pytest.approx(published_ms, rel=0.03)


def test_a_stated_downtime_beside_ram_replaces_the_default() -> None:
    vm = VmConfig("1GiB", vcpus=8, vfio_devices=3)
    assert non_ram_ms(vm, non_ram_downtime_ms=7) == 7
    assert non_ram_ms(vm, non_ram_downtime_ms=0.0) == 0


@pytest.mark.parametrize("value", ["", "20ms", "50", "Auto"])
def test_a_downtime_beside_ram_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        non_ram_ms(VmConfig("1GiB"), non_ram_downtime_ms=value)
    assert (caught.value.key, caught.value.code) == ("link.non_ram_downtime_ms", "not_a_number")


def test_a_zero_page_takes_246_ns() -> None:
    assert resolve(Config(vm=VmConfig("1GiB"))).link.zero_page_ns == pytest.approx(246, rel=0.005)
