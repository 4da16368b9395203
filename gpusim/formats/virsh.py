"""A profile from a log of virsh: `virsh domstats --dirtyrate` after each `virsh domdirtyrate-calc`.

Owns the format of virsh's output. It does not fit a guest.
Source: libvirt's docs/manpages/virsh.rst (domstats --dirtyrate, --balloon, --vcpu, and domdirtyrate-calc)
and tools/virsh-domain-monitor.c (dominfo).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from gpusim.formats.errors import ProfileError
from gpusim.formats.foreign_logs import hint_at_reader
from gpusim.formats.pasted_text import clean
from gpusim.formats.profile import (
    LONGEST_S,
    MODES,
    SAMPLES_PER_GIB,
    SHORTEST_S,
    SIZE,
    Measurement,
    Profile,
    check_plausible,
    read_source,
)
from gpusim.formats.recording_shape import VCPUS
from gpusim.shapes import ShapeError, check
from gpusim.text import did_you_mean, join_words

MEASURED = ("2", "measured")  # VIR_DOMAIN_DIRTYRATE_MEASURED, and the text of older libvirts
# Lines are matched without the white space around them.
PAIR = re.compile(r"([\w.-]+)=(.*)", re.ASCII)
DOMINFO = re.compile(r"(CPU\(s\)|Max memory|Used memory):\s+([0-9]{1,18})(?: KiB)?")
VCPU_RATE = re.compile(r"dirtyrate\.vcpu\.[0-9]+\.megabytes_per_second")
WHOLE = re.compile(r"[0-9]{1,18}")
DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
DOMAIN = re.compile(r"Domain: '(.*)'")
DOMAIN_LINE = re.compile(r"^[^\S\n]*Domain: '(.*)'[^\S\n]*$", re.M)
DOMINFO_NAME = re.compile(r"Name:\s+(\S.*)")
MEASURE_ADVICE = "Run one virsh domdirtyrate-calc for each of 1, 2, 5, 10 and 30 s"


def load_domstats(
    path: Path, memory_bytes: int | None, vcpus: int | None, domain: str | None = None
) -> Profile:
    """Read a log file of virsh. See `from_domstats`.

    Raises:
        ProfileError: the file cannot be read, or does not describe one VM.
    """
    text = clean(read_source(path, "a log of virsh"))
    return from_domstats(text, path, memory_bytes, vcpus, domain)


def from_domstats(
    text: str,
    path: str | Path,
    memory_bytes: int | None = None,
    vcpus: int | None = None,
    domain: str | None = None,
) -> Profile:
    """Return the profile that a log of virsh describes.

    libvirt measures whole seconds, and samples QEMU's default of 512 pages per GiB.

    Args:
        text: of the log.
        path: of the log, for errors.
        memory_bytes: of the VM. None: from `virsh dominfo` or domstats in the same log.
        vcpus: of the VM. None: as for `memory_bytes`.
        domain: name of the VM. None: the log has only one.

    Raises:
        ProfileError: the log has no measurements, or several VMs and no `domain`, or no VM with this
            name, or no size of the VM.
    """
    domains = sorted(set(DOMAIN_LINE.findall(text)))
    if domain is not None:
        found = split_domains(text).get(domain)
        if found is None:
            hint = did_you_mean(domain, domains)
            raise ProfileError("no_such_vm", path=path, name=domain, vms=len(domains), hint=hint)
        text, domains = found, [domain]
    if len(domains) > 1:
        raise ProfileError("several_vms", path=path, names=join_words(domains))
    values = last_values(text)
    memory_bytes = memory_bytes or memory_of(values)
    if not memory_bytes:
        hint = hint_at_reader(text, "gpusim-predict --domstats")
        raise ProfileError("no_memory_size", path=path, hint=hint)
    vcpus = vcpus or vcpus_of(values) or 1
    for key, value, shape in (("memory", memory_bytes, SIZE), ("vcpus", vcpus, VCPUS)):
        try:
            check(value, shape, key)
        except ShapeError as error:
            raise ProfileError(error.code, path=path, **error.data) from None
    runs = finished_runs(text)
    if not runs:
        hint = hint_at_reader(text, "gpusim-predict --domstats")
        raise ProfileError("no_measurement", path=path, hint=hint)
    modes = sorted({run.get("dirtyrate.calc_mode", MODES[0]) for run in runs})
    if len(modes) > 1 or modes[0] not in MODES:
        lists = {"modes": join_words(modes), "allowed": join_words(MODES, "or")}
        raise ProfileError("several_modes", path=path, **lists)
    start_s = min(number_of(path, run, "calc_start_time", 0.0) for run in runs)
    profile = Profile(
        source=f"virsh domstats of {'a VM' if not domains else domains[0]}",
        memory_bytes=memory_bytes,
        vcpus=vcpus,
        mode=modes[0],
        sample_pages=SAMPLES_PER_GIB if modes[0] == "page-sampling" else None,
        measurements=tuple(
            Measurement(
                seconds=number_of(path, run, "calc_period"),
                dirty_rate=number_of(path, run, "megabytes_per_second"),
                at_s=number_of(path, run, "calc_start_time", start_s) - start_s,
            )
            for run in runs
        ),
        notes=("virsh reports neither migration parameters nor the number of zero pages",),
    )
    check_plausible(path, profile, MEASURE_ADVICE)
    return profile


def split_domains(text: str) -> dict[str, str]:
    """Return the lines of each VM by its name, in the order in which the VMs come first.

    A VM's lines follow "Domain: 'NAME'" of domstats or "Name: NAME" of dominfo.
    """
    parts: dict[str, list[str]] = {}
    lines: list[str] = []  # before the first name
    for line in text.split("\n"):
        plain = line.strip()
        if header := DOMAIN.fullmatch(plain) or DOMINFO_NAME.fullmatch(plain):
            lines = parts.setdefault(header[1], [])
        lines.append(line)
    return {name: "\n".join(found) for name, found in parts.items()}


def memory_of(values: Mapping[str, str]) -> int:
    """Return the memory that dominfo or domstats printed, in bytes, or 0."""
    return 1024 * _whole(values, "Max memory", "balloon.maximum")


def vcpus_of(values: Mapping[str, str]) -> int:
    """Return the vCPUs that dominfo or domstats printed, or those of a dirty ring, or 0."""
    return _whole(values, "CPU(s)", "vcpu.current") or _measured_vcpus(values)


def last_values(text: str) -> dict[str, str]:
    """Return the last value of each name that dominfo and domstats printed."""
    found = {}
    for line in map(str.strip, text.split("\n")):
        if pair := DOMINFO.fullmatch(line) or PAIR.fullmatch(line):
            found[pair[1]] = pair[2].strip()
    return found


def _whole(values: Mapping[str, str], *names: str) -> int:
    """Return the first of the values that is a whole number, or 0. A log may be cut off."""
    return next((int(values[name]) for name in names if WHOLE.fullmatch(values.get(name, ""))), 0)


def _measured_vcpus(values: Mapping[str, str]) -> int:
    """Count the vCPUs whose dirty rings were measured."""
    return sum(bool(VCPU_RATE.fullmatch(name)) for name in values)


def finished_runs(text: str) -> list[dict[str, str]]:
    """Return the finished measurements. A measurement that was printed twice counts once."""
    runs: list[dict[str, str]] = []
    for line in map(str.strip, text.split("\n")):
        pair = PAIR.fullmatch(line)
        if pair is None or not pair[1].startswith("dirtyrate."):
            continue
        if not runs or pair[1] in runs[-1]:
            runs.append({})
        runs[-1][pair[1]] = pair[2].strip()
    done = [run for run in runs if run.get("dirtyrate.calc_status") in MEASURED]
    once = {tuple(sorted(run.items())): run for run in done}
    return list(once.values()) if all("dirtyrate.calc_start_time" in run for run in done) else done


def number_of(
    path: str | Path, run: Mapping[str, str], name: str, default: float | None = None
) -> float:
    """Return a number of a measurement.

    Args:
        path: of the log, for errors.
        run: one measurement, see `finished_runs`.
        name: of the value, without "dirtyrate.".
        default: if the measurement lacks it. None: it must be there.

    Raises:
        ProfileError: the value is missing, no number or out of range.
    """
    key = f"dirtyrate.{name}"
    value = run.get(key, default)
    low, high = (
        (SHORTEST_S, LONGEST_S)
        if name == "calc_period"
        else (0.0, 1e12 if name == "calc_start_time" else 1e9)
    )
    is_number = not isinstance(value, str) or DECIMAL.fullmatch(value)
    found = math.nan if value is None or not is_number else float(value)
    if not low <= found <= high:
        allowed = f"must be a number from {low:g} to {high:g}"
        raise ProfileError("bad_value", path=path, key=key, value=value, allowed=allowed)
    return found
