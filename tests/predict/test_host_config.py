"""The config of a profile, and the assumptions for what the profile does not say."""

from __future__ import annotations

from dataclasses import replace
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
    assert migration.multifd_channels == 2  # QEMU's default if the capability is on


def test_libvirts_value_for_no_limit_is_no_limit() -> None:
    profile = profile_with(parameters={"max-bandwidth": 9223372036853727232})
    assert host_config(profile).config.migration.max_bandwidth == 0


def test_auto_converge_is_on_if_the_vm_has_it_on_or_is_unknown() -> None:
    assert not host_config(profile_with(capabilities=())).config.migration.auto_converge
    assert host_config(profile_with()).config.migration.auto_converge  # no capabilities are known
    typed = profile_with(parameters={"downtime-limit": 500})  # only one parameter is known
    assert host_config(typed).config.migration.auto_converge


def test_capabilities_count_without_parameters() -> None:
    migration = host_config(profile_with(capabilities=("multifd",))).config.migration
    assert (migration.auto_converge, migration.multifd_channels) == (False, 2)


def test_an_interpolation_in_a_profile_is_refused_and_not_resolved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHANNELS", "7")
    typed = {"multifd-channels": "${oc.env:CHANNELS}"}
    profile = profile_with(parameters=typed, capabilities=("multifd",))
    with pytest.raises(ConfigError) as error:
        host_config(profile)
    assert (error.value.key, error.value.code) == ("parameters.multifd-channels", "not_a_number")
    assert error.value.value == typed["multifd-channels"]


def test_an_override_replaces_what_the_profile_says() -> None:
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


def test_the_vm_comes_from_the_profile() -> None:
    config = host_config(profile_with(blocks={"rom": GIB, "pc.ram": 63 * GIB})).config
    assert (config.vm.memory, config.vm.vcpus) == (64 * GIB, 4)
    assert config.vm.blocks == [63 * GIB, GIB]  # in the order of the simulator


@pytest.mark.parametrize(
    "override",
    [
        "vm=huge_1tib", "workload.page_writes_per_s=1", "sweep=seeds", "experiment=tiny", "seed=3",
        "link.wakeup_latency_us=9", "limit.wall=3s", "hydra/launcher=joblib", "hydra.run.dir=here", "plot=true",
        "~vm.memory", "~vm", "~seed", "~plot", "~vm.memory=3GiB",
    ],
)  # fmt: skip
def test_an_override_that_no_prediction_uses_is_an_error(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        host_config(profile_with(), [override])
    assert caught.value.code == "not_used"
    assert caught.value.value == override.partition("=")[2] or caught.value.value == override


@pytest.mark.parametrize("override", ["~migration", "~link", "~tracking=kvm_manual"])
def test_a_removal_that_would_lose_what_the_profile_says_is_refused(override: str) -> None:
    """~migration gave the answer for another version of QEMU than the profile's."""
    with pytest.raises(ConfigError, match="cannot be removed") as caught:
        host_config(profile_with(), [override])
    assert caught.value.value == override


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
        ({"parameters": {"tls-creds": "tls0"}}, Message("tls_assumed")),
        (
            {"parameters": {"zero-page-detection": "none"}},
            not_simulated("zero-page-detection none"),
        ),
        (
            {
                "capabilities": ("multifd",),
                "parameters": {"zero-page-detection": "legacy"},
                "qemu": (10, 0, 0),
            },
            not_simulated("zero-page-detection legacy"),
        ),
        ({"parameters": {"warp-factor": 9}}, Message("unknown_names", {"names": ("warp-factor",)})),
    ],
)
def test_assumptions_have_codes(more: dict[str, Any], expected: Message) -> None:
    assert expected in host_config(profile_with(**more)).assumptions


def test_multifd_of_a_qemu_that_gpusim_simulates_as_an_older_one_is_ignored() -> None:
    host = host_config(profile_with(capabilities=("multifd",), qemu=(4, 2, 0)))
    assert host.config.migration.multifd_channels == 0


@pytest.mark.parametrize("value", [[1], "a=}", None])
def test_a_parameter_that_is_not_a_number_is_an_error(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        host_config(profile_with(parameters={"downtime-limit": value}))
    assert (caught.value.key, caught.value.code) == ("parameters.downtime-limit", "not_a_number")


def test_parameters_that_no_prediction_uses_are_ignored() -> None:
    host = host_config(
        profile_with(parameters={"block-bitmap-mapping": [], "downtime-limit": "300"})
    )
    assert host.config.migration.downtime_limit == 300


def test_values_that_are_set_are_no_assumptions() -> None:
    profile = profile_with(parameters=SHOWN, capabilities=())
    overrides = ["link=25gbit", "link.non_ram_downtime_ms=20", "tracking=dirty_ring"]
    assert host_config(profile, overrides).assumptions == ()


def test_a_profile_has_no_vfio_devices_so_the_user_states_them() -> None:
    plain, two = (
        host_config(profile_with(), overrides) for overrides in ([], ["vm.vfio_devices=2"])
    )
    added_ms = two.costs["non_ram_downtime_ms"].low - plain.costs["non_ram_downtime_ms"].low
    assert added_ms == pytest.approx(2 * 54 / 4)


def test_the_backing_is_the_users_or_the_profiles() -> None:
    huge = replace(profile_with(), memory_bytes=4 * 2**30, blocks={}, backing="hugetlb_1g")
    found = [
        host_config(profile, overrides).config.vm.backing
        for profile, overrides in (
            (profile_with(), []),
            (huge, []),
            (huge, ["vm.backing=4k"]),
            (profile_with(), ["vm.backing=4k"]),
        )
    ]
    assert found == ["thp", "hugetlb_1g", "4k", "4k"]
    plain = host_config(profile_with())
    assert host_config(huge).costs["zero_page_scan"].low > plain.costs["zero_page_scan"].low


def test_tls_slows_the_drawn_threads() -> None:
    encrypted = profile_with(parameters={"tls-creds": "tls0"})
    plain = profile_with(parameters={"tls-creds": ""})
    slow, fast = (host_config(one).costs["page_cost_ns"] for one in (encrypted, plain))
    assert slow.low > fast.high
    stated = host_config(encrypted, ["link.page_cost_ns=7885"])
    assert "page_cost_ns" not in stated.costs
    assert Message("tls_assumed") not in stated.assumptions
    assert Message("tls_assumed") not in host_config(plain).assumptions


@pytest.mark.parametrize(
    ("qemu", "version"),
    [
        ((2, 5), "qemu_2_6"), ((2, 12), "qemu_2_6"), ((4, 2), "qemu_2_6"), ((5, 0), "qemu_7_2"),
        ((7, 2), "qemu_7_2"), ((8, 1), "qemu_7_2"), ((8, 2), "qemu_8_2"), ((9, 0), "qemu_9_1"),
        ((9, 1), "qemu_9_1"),
        ((9, 2), "qemu_9_2"), ((10, 0), "qemu_9_2"), ((10, 1), "qemu_10_1"), ((11, 0), "qemu_11_0"),
    ],
)  # fmt: skip
def test_the_nearest_version(qemu: tuple[int, int], version: str) -> None:
    """QEMU 5.0 added the throttle parameters. 9.0 moved the search for zero pages to channels."""
    assert nearest(qemu) == version


def test_an_old_qemu_has_no_manual_protect() -> None:
    """QEMU 5.0 added manual protect."""
    assert host_config(profile_with(qemu=(2, 12, 0))).config.tracking.mode == "kvm_legacy"
    assert host_config(profile_with()).config.tracking.mode == "kvm_manual"


def test_a_policy_decides_its_keys_whatever_the_vm_has() -> None:
    """OpenStack Nova sets capabilities for each migration. The user's own keys still win."""
    capabilities = ("auto-converge", "multifd")
    profile = profile_with(parameters=SHOWN | {"downtime-limit": 77}, capabilities=capabilities)
    migration = host_config(profile, ["policy=nova"]).config.migration
    assert (migration.auto_converge, migration.multifd_channels) == (False, 0)
    assert migration.downtime_limit == 77
    assert migration.manager is not None
    listed = host_config(profile, ["policy=[nova, responsive]", "migration.auto_converge=true"])
    assert listed.config.migration.auto_converge
    assert host_config(profile, ["policy=none"]).config.migration.multifd_channels == 2
    unknown = host_config(profile_with(), ["policy=nova"])
    assert "auto_converge_assumed" not in [one.code for one in unknown.assumptions]
