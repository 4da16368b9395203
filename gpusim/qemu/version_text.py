"""The version of QEMU in a text as people have it: a package, a banner, or the number alone."""

from __future__ import annotations

import re

ALLOWED = 'must be a version such as "9.2.0", as qemu-system-x86_64 --version prints it'
# Only what begins with a number or names QEMU: "Ubuntu 24.04" holds no version of QEMU.
_VERSION = re.compile(
    r"(?:v|[0-9]+:|.*?qemu[^0-9]*(?:[0-9]+:)?)?([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:\.([0-9]{1,3}))?(?![0-9:])",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 200  # characters


def parse_version(text: object) -> tuple[int, int, int]:
    """Return (major, minor, micro) of "9.2", "QEMU emulator version 8.2.2 (Debian)" or "qemu-kvm-9.1.0".

    Raises:
        ValueError: the text has no version of QEMU.
    """
    found = _VERSION.match(str(text).strip()[:_LONGEST].replace("x86_64", ""))
    if found is None:
        raise ValueError("not a version")
    return int(found[1]), int(found[2] or 0), int(found[3] or 0)
