"""The version of QEMU in a text as people have it: a package, a banner, a distribution, or the number."""

from __future__ import annotations

import re

ALLOWED = (
    'must be a version such as "9.2.0", as qemu-system-x86_64 --version prints it, or "Debian 12"'
)
# Only what begins with a number or names QEMU: "Ubuntu 24.04" holds no version of QEMU.
_VERSION = re.compile(
    r"(?:v|[0-9]+:|.*?qemu[^0-9]*(?:[0-9]+:)?)?([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:\.([0-9]{1,3}))?(?![0-9:])",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 200  # characters
# The QEMU that each release has. Backports, cloud archives and later updates have others. Sources: Debian's
# package index (qemu-system-x86), Ubuntu's package versions (8.2.2+ds-0ubuntu1, 6.2+dfsg-2ubuntu6) and
# Canonical's announcement of 20.04, versions of RHEL's packages (qemu-kvm-9.1.0-15.el9_6, and so on, with
# .elMAJOR_MINOR), output of pveversion -v (7.3, 8.4, 9.1) and summaries of release notes (9.0, 9.2).
DISTRIBUTIONS = {
    "debian 11": (5, 2),
    "debian 12": (7, 2),
    "debian 13": (10, 0),
    "ubuntu 20.04": (4, 2),
    "ubuntu 22.04": (6, 2),
    "ubuntu 24.04": (8, 2),
    "rhel 8.10": (6, 2),
    "rhel 9.2": (7, 2),
    "rhel 9.3": (8, 0),
    "rhel 9.4": (8, 2),
    "rhel 9.5": (9, 0),
    "rhel 9.6": (9, 1),
    "rhel 9.7": (9, 1),
    "rhel 9.8": (10, 1),
    "rhel 10.0": (9, 1),
    "rhel 10.1": (10, 0),
    "rhel 10.2": (10, 1),
    "proxmox ve 7.3": (7, 1),
    "proxmox ve 8.4": (9, 2),
    "proxmox ve 9.0": (10, 0),
    "proxmox ve 9.1": (10, 1),
    "proxmox ve 9.2": (11, 0),
}
_FAMILIES = {
    "debian": r"debian(?: gnu/linux)?",
    "ubuntu": r"ubuntu",
    "rhel": r"(?:rhel|red hat enterprise linux|rocky(?: linux)?|alma ?linux|el)",
    "proxmox ve": r"(?:proxmox ?ve|proxmox|pve)",
}
_RELEASE = re.compile(
    "|".join(
        rf"(?:{name})[ -]?(?:release )?([0-9]{{1,2}}(?:\.[0-9]{{1,2}})?)"
        for name in _FAMILIES.values()
    ),
    re.IGNORECASE,
)


def parse_version(text: object) -> tuple[int, int, int]:
    """Return (major, minor, micro) of "9.2", "QEMU emulator version 8.2.2", "qemu-kvm-9.1.0" or "RHEL 9.4".

    Raises:
        ValueError: the text has no version of QEMU.
    """
    shown = str(text).strip()[:_LONGEST]
    found = _VERSION.match(shown.replace("x86_64", ""))
    release = _RELEASE.match(shown)
    if release is not None and found is None:  # it does not name QEMU itself
        return *_version_in(release), 0
    if found is None:
        raise ValueError("not a version")
    return int(found[1]), int(found[2] or 0), int(found[3] or 0)


def _version_in(release: re.Match[str]) -> tuple[int, int]:
    """Return the version in a release. A point release of Debian has that of its major number."""
    numbers = zip(_FAMILIES, release.groups(), strict=True)
    names = [f"{family} {number}" for family, number in numbers if number]
    for name in (names[0], names[0].split(".")[0]):
        if name in DISTRIBUTIONS:
            return DISTRIBUTIONS[name]
    raise ValueError(f"known distributions: {', '.join(DISTRIBUTIONS)}")
