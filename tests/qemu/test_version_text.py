"""The version of QEMU in what tools print."""

from __future__ import annotations

import pytest

from gpusim.qemu.version_text import parse_version


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
        ("Using library: libvirt 10.0.0\nRunning hypervisor: QEMU 8.2.2", (8, 2, 2)),
    ],
)
def test_versions_as_people_have_them(text: object, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text", ["", "new", "Ubuntu 24.04", "1234.5", "x9.2", "qemu-system-x86_64"]
)
def test_a_text_without_a_version_of_qemu(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)
