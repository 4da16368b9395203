"""The version of QEMU in what tools print."""

from __future__ import annotations

import re

import pytest

from gpusim.qemu.version_text import DISTRIBUTIONS, parse_version
from tests.cli.command import REPOSITORY


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("9.2.0", (9, 2, 0)),
        ("9.2", (9, 2, 0)),
        (10, (10, 0, 0)),
        ("v10.1.0", (10, 1, 0)),
        ("9.2.0 (Debian 1:9.2.0+ds-2)", (9, 2, 0)),
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1.4)", (8, 2, 2)),
        ("1:8.2.2+ds-0ubuntu1", (8, 2, 2)),
        ("qemu-kvm-9.1.0-15.el9", (9, 1, 0)),
        ("qemu-kvm-17:9.1.0-15.el9_6", (9, 1, 0)),
        ("qemu-system-x86_64 (1:7.2+dfsg-7)", (7, 2, 0)),
        ("pve-qemu-kvm_9.2.0-5", (9, 2, 0)),
        ("Ubuntu 24.04", (8, 2, 0)),
        ("Ubuntu 22.04.5 LTS", (6, 2, 0)),
        ("Debian GNU/Linux 12 (bookworm)", (7, 2, 0)),
        ("debian 13", (10, 0, 0)),
        ("Debian GNU/Linux 12.5", (7, 2, 0)),
        ("Debian 11, QEMU 7.2.9 from backports", (7, 2, 9)),
        ("Ubuntu 22.04: QEMU emulator version 8.2.2", (8, 2, 2)),
        ("Red Hat Enterprise Linux release 9.4 (Plow)", (8, 2, 0)),
        ("Rocky Linux 9.6", (9, 1, 0)),
        ("Proxmox VE 8.4", (9, 2, 0)),
        ("pve 9.0", (10, 0, 0)),
        ("Using library: libvirt 10.0.0\nRunning hypervisor: QEMU 8.2.2", (8, 2, 2)),
    ],
)
def test_versions_as_people_have_them(text: object, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


def test_the_documented_distributions_are_those_that_are_read() -> None:
    text = (REPOSITORY / "docs/how-to/predict-a-migration.md").read_text()
    rows = re.findall(
        r"^\| (Debian|Ubuntu|RHEL|Proxmox VE)[^|]*? ([0-9., ]+) \| ([0-9., ]+) \|$", text, re.M
    )
    documented = {
        f"{family.lower()} {release}": tuple(map(int, version.split(".")))
        for family, releases, versions in rows
        for release, version in zip(releases.split(", "), versions.split(", "), strict=True)
    }
    assert documented == DISTRIBUTIONS


@pytest.mark.parametrize(
    "text",
    ["", "new", "Ubuntu 99.04", "RHEL 7.9", "Fedora 42", "1234.5", "x9.2", "qemu-system-x86_64"],
)
def test_a_text_without_a_version_of_qemu(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)
