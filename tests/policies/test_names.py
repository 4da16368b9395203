"""Is every manager called by its own name, wherever it is shown?"""

from __future__ import annotations

from gpusim.policies.names import TOOLS, decider_name, rule_name, title_name
from gpusim.policies.own_managers import OWN_MANAGERS
from gpusim.policies.user_rule import UserRule

CLOUD = "gpusim.policies.cloud_hypervisor:CloudHypervisor"


def test_each_manager_has_one_name() -> None:
    assert set(TOOLS) == set(OWN_MANAGERS)
    titles = [title_name(target) for target in TOOLS]
    assert len(set(titles)) == len(titles)
    for target, kind in OWN_MANAGERS.items():
        assert UserRule(target, kind).name == rule_name(target) == TOOLS[target]
        assert decider_name("qemu_9_2", f"manager {target}(timeout_s=3)").endswith(
            f"QEMU 9.2 with manager {title_name(target)}"
        )
    assert rule_name(CLOUD) == "Cloud Hypervisor"


def test_a_users_class_keeps_its_name() -> None:
    assert rule_name("mine:OVirt") == "OVirt"
    assert decider_name("qemu_9_2", "throttle_rule mine:T") == "QEMU 9.2 with throttle rule T"
    both = "throttle_rule my.rules:Outer.T(step=5, note=a, b), manager m:\u0394elta"
    assert decider_name("seed_v2", both) == "seed v2 with throttle rule T and manager \u0394elta"
    assert len(decider_name("v" * 1000, f"manager m:{'M' * 1000}")) < 120
    assert len(decider_name("qemu_9_2", "<object at 0x7f> " * 1000)) < 120
