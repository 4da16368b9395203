"""Does a profile's host become the config it is predicted with, and is what it cannot tell said?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.errors import ConfigError
from gpusim.formats.profile import Profile
from gpusim.predict.host_config import PARAMETERS, host_config
from gpusim.qemu.versions import nearest
from gpusim.text import Message
from tests.formats.profiles import exact_profile, uniform_pages
from tests.monitor.fake_qmp import PARAMETERS as SHOWN

GIB = 2**30


def profile_with(**more: Any) -> Profile:
    return exact_profile(uniform_pages(20_000, 5000), 64 * GIB, **more)


def test_parameters_are_those_of_the_vm() -> None:
    shown = SHOWN | {
        "cpu-throttle-initial": 30,
        "cpu-throttle-tailslow": True,
        "downtime-limit": 77,
    }
    profile = profile_with(parameters=shown, capabilities=("auto-converge", "multifd"))
    migration = host_config(profile).config.migration
    for name, key in PARAMETERS.items():
        assert getattr(migration, key) == shown[name], name
    assert migration.version == "qemu_9_2"
    assert migration.auto_converge
    assert migration.multifd_channels == 2  # QEMU's default where the capability is on


def test_no_limit_as_libvirt_sets_it_is_none() -> None:
    profile = profile_with(parameters={"max-bandwidth": 9223372036853727232})
    assert host_config(profile).config.migration.max_bandwidth == 0


def test_auto_converge_is_on_only_where_the_vm_has_it_on() -> None:
    assert not host_config(profile_with(capabilities=())).config.migration.auto_converge
    assert host_config(profile_with()).config.migration.auto_converge  # nothing is known
    typed = profile_with(parameters={"downtime-limit": 500})  # by somebody who says no more
    assert host_config(typed).config.migration.auto_converge


def test_capabilities_count_without_parameters() -> None:
    migration = host_config(profile_with(capabilities=("multifd",))).config.migration
    assert (migration.auto_converge, migration.multifd_channels) == (False, 2)


def test_what_the_user_says_wins() -> None:
    profile = profile_with(parameters=SHOWN, capabilities=("auto-converge",))
    host = host_config(
        profile, ["link=25gbit", "migration=qemu_9_1", "migration.downtime_limit=500"]
    )
    assert host.config.link.bandwidth == "25Gbit/s"
    assert (host.config.migration.version, host.config.migration.downtime_limit) == (
        "qemu_9_1",
        500,
    )


def not_simulated(feature: str) -> Message:
    return Message("not_simulated", {"features": (feature,)})


def test_the_vm_is_the_profile_s() -> None:
    config = host_config(profile_with(blocks={"rom": GIB, "pc.ram": 63 * GIB})).config
    assert (config.vm.memory, config.vm.vcpus) == (64 * GIB, 4)
    assert config.vm.blocks == [63 * GIB, GIB]  # the simulator's order


@pytest.mark.parametrize(
    "override",
    [
        "vm=huge_1tib", "workload.page_writes_per_s=1", "sweep=seeds", "experiment=tiny", "seed=3",
        "link.wakeup_latency_us=9", "limit.wall=3s", "hydra/launcher=joblib", "hydra.run.dir=here", "plot=true",
    ],
)  # fmt: skip
def test_what_no_profile_is_predicted_with(override: str) -> None:
    with pytest.raises(ConfigError):
        host_config(profile_with(), [override])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Message("link_assumed")),
        ({"qemu": None}, Message("version_assumed", {"version": "QEMU 10.1"})),
        ({}, Message("parameters_assumed")),
        ({"parameters": SHOWN}, Message("auto_converge_assumed")),
        ({}, Message("tracking_assumed", {"tracking": "kvm_manual"})),
        ({"capabilities": ("xbzrle",)}, not_simulated("xbzrle")),
        ({"capabilities": ("x-ignore-shared",)}, not_simulated("x-ignore-shared")),
        (
            {"capabilities": ("multifd",), "parameters": {"multifd-compression": "zstd"}},
            not_simulated("multifd-compression zstd"),
        ),
        ({"capabilities": ("multifd",), "qemu": (4, 2, 0)}, not_simulated("multifd")),
        ({"parameters": {"warp-factor": 9}}, Message("unknown_names", {"names": ("warp-factor",)})),
        ({}, Message("only_ram_downtime")),
    ],
)
def test_assumptions_have_codes(more: dict[str, Any], expected: Message) -> None:
    assert expected in host_config(profile_with(**more)).assumptions


def test_multifd_of_a_qemu_that_is_simulated_as_an_older_one_is_no_error() -> None:
    host = host_config(profile_with(capabilities=("multifd",), qemu=(4, 2, 0)))
    assert host.config.migration.multifd_channels == 0


@pytest.mark.parametrize("value", [[1], "a=}", None])
def test_a_parameter_that_is_no_number_is_told_by_its_name(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"parameters\.downtime-limit = .*must be a number"):
        host_config(profile_with(parameters={"downtime-limit": value}))


def test_what_else_query_migrate_parameters_lists_is_passed_over() -> None:
    """Some are lists, which no profile needs."""
    host = host_config(
        profile_with(parameters={"block-bitmap-mapping": [], "downtime-limit": "300"})
    )
    assert host.config.migration.downtime_limit == 300


def test_what_is_said_is_not_assumed() -> None:
    profile = profile_with(parameters=SHOWN, capabilities=())
    said = ["link=25gbit", "link.non_ram_downtime_ms=20", "tracking=dirty_ring"]
    assert host_config(profile, said).assumptions == ()


@pytest.mark.parametrize(
    ("qemu", "version"),
    [
        ((2, 5), "qemu_2_6"), ((2, 12), "qemu_2_6"), ((4, 2), "qemu_2_6"), ((5, 0), "qemu_7_2"),
        ((7, 2), "qemu_7_2"), ((8, 1), "qemu_7_2"), ((8, 2), "qemu_9_1"), ((9, 1), "qemu_9_1"),
        ((9, 2), "qemu_9_2"), ((10, 0), "qemu_9_2"), ((10, 1), "qemu_10_1"), ((11, 0), "qemu_10_1"),
    ],
)  # fmt: skip
def test_the_nearest_version(qemu: tuple[int, int], version: str) -> None:
    """5.0 brought the throttle's parameters, 8.2 the rate limit's other count."""
    assert nearest(qemu) == version


def test_an_old_qemu_tracks_as_it_can() -> None:
    """Manual protect came with 5.0."""
    assert host_config(profile_with(qemu=(2, 12, 0))).config.tracking.mode == "kvm_legacy"
    assert host_config(profile_with()).config.tracking.mode == "kvm_manual"
