"""A profile from what virsh printed: `virsh domstats --dirtyrate` behind each `virsh domdirtyrate-calc`.

Owns virsh's words. It knows no fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gpusim.formats.profile import (
    LONGEST_S,
    MODES,
    SAMPLES_PER_GIB,
    SHORTEST_S,
    Measurement,
    Profile,
    ProfileError,
    require_sense,
)

MEASURED = ("2", "measured")  # VIR_DOMAIN_DIRTYRATE_MEASURED, and libvirt's first word for it
PAIR = re.compile(r"\s*([\w.-]+)=(.*?)\s*")
DOMINFO = re.compile(r"\s*(CPU\(s\)|Max memory|Used memory):\s+(\d+)(?: KiB)?\s*")
OF_A_VCPU = re.compile(r"dirtyrate\.vcpu\.\d+\.megabytes_per_second")
DOMAIN = re.compile(r"\s*Domain: '(.*)'\s*")


def load_domstats(path: Path, memory_bytes: int | None, vcpus: int | None) -> Profile:
    """Of a log of virsh's.

    Raises:
        ProfileError: it cannot be read, or says nothing of its VM.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ProfileError(path, f"cannot be read ({reason}); expected virsh's log") from None
    return from_domstats(text, path, memory_bytes, vcpus)


def from_domstats(
    text: str, path: str | Path, memory_bytes: int | None = None, vcpus: int | None = None
) -> Profile:
    """What `virsh domstats --dirtyrate` printed, once behind each `virsh domdirtyrate-calc`.

    Formats: libvirt's docs/manpages/virsh.rst (domstats --dirtyrate, --balloon, --vcpu; domdirtyrate-calc) and
    tools/virsh-domain-monitor.c (dominfo). libvirt asks QEMU for whole seconds, and samples QEMU's default of
    512 pages a GiB.

    Args:
        memory_bytes, vcpus: of the VM; None: as `virsh dominfo` or domstats in the same log say.

    Raises:
        ProfileError: no measurements, or of several VMs, or the VM's size is not there.
    """
    names = {found[1] for line in text.splitlines() if (found := DOMAIN.fullmatch(line))}
    if len(names) > 1:
        raise ProfileError(path, f"tells of {', '.join(sorted(names))}; expected one VM")
    told = _told(text)
    memory_bytes = memory_bytes or 1024 * _whole(told, "Max memory", "balloon.maximum")
    if not memory_bytes:
        raise ProfileError(
            path,
            "does not say how large the VM is; expected --memory, or `virsh dominfo` in the same log",
        )
    runs = _runs(path, text)
    mode = runs[-1].get("dirtyrate.calc_mode", MODES[0])
    if any(run.get("dirtyrate.calc_mode", MODES[0]) != mode for run in runs) or mode not in MODES:
        raise ProfileError(path, f"measured in several modes; expected one of {', '.join(MODES)}")
    start = min(_number(path, run, "calc_start_time", 0.0) for run in runs)
    profile = Profile(
        source=f"virsh domstats of {', '.join(names) or 'a VM'}",
        memory_bytes=memory_bytes,
        vcpus=vcpus or _whole(told, "CPU(s)", "vcpu.current") or _measured_vcpus(told) or 1,
        mode=mode,
        sample_pages=SAMPLES_PER_GIB if mode == "page-sampling" else None,
        measurements=tuple(
            Measurement(
                seconds=_number(path, run, "calc_period"),
                dirty_rate=_number(path, run, "megabytes_per_second"),
                at_s=_number(path, run, "calc_start_time", start) - start,
            )
            for run in runs
        ),
        notes=("virsh tells neither the parameters of a migration nor how many pages are zero",),
    )
    require_sense(path, profile, "one domdirtyrate-calc for each of 1, 2, 5, 10 and 30 s")
    return profile


def _told(text: str) -> dict[str, str]:
    """What dominfo and domstats say of the VM, the last word of each."""
    found = {}
    for line in text.splitlines():
        if pair := DOMINFO.fullmatch(line) or PAIR.fullmatch(line):
            found[pair[1]] = pair[2]
    return found


def _whole(told: Mapping[str, str], *names: str) -> int:
    """The first of them that is a whole number, 0 if none is: a log may be cut off."""
    return next((int(told[name]) for name in names if told.get(name, "").isdecimal()), 0)


def _measured_vcpus(told: Mapping[str, str]) -> int:
    """vCPUs that a dirty ring was measured of, each by itself."""
    return sum(bool(OF_A_VCPU.fullmatch(name)) for name in told)


def _runs(path: str | Path, text: str) -> list[dict[str, str]]:
    """The measurements that were done, each once however often it was printed."""
    runs: list[dict[str, str]] = []
    for line in text.splitlines():
        pair = PAIR.fullmatch(line)
        if pair is None or not pair[1].startswith("dirtyrate."):
            continue
        if not runs or pair[1] in runs[-1]:
            runs.append({})
        runs[-1][pair[1]] = pair[2]
    done = [run for run in runs if run.get("dirtyrate.calc_status") in MEASURED]
    if not done:
        raise ProfileError(
            path,
            "no dirtyrate.calc_status=2 (measured); expected `virsh domstats --dirtyrate` after each "
            "`virsh domdirtyrate-calc` has ended",
        )
    once = {tuple(sorted(run.items())): run for run in done}
    return list(once.values()) if all("dirtyrate.calc_start_time" in run for run in done) else done


def _number(
    path: str | Path, run: Mapping[str, str], key: str, default: float | None = None
) -> float:
    value = run.get(f"dirtyrate.{key}", default)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = -1.0
    limits = (SHORTEST_S, LONGEST_S) if key == "calc_period" else (0.0, 1e12)
    if not limits[0] <= found <= limits[1]:
        raise ProfileError(
            path,
            f"dirtyrate.{key} is {value}; expected a number from {limits[0]:g} to {limits[1]:g}",
        )
    return found
