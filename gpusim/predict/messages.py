"""The text of each message code of a prediction: warnings, assumptions, notes on the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpusim.text import Message, count_noun, join_words
from gpusim.units import format_bytes

TEXTS: Mapping[str, str] = {
    # Warnings about the profile
    "measurements_noisy": (
        "The measurements are noisy: no mixture of writers explains them (chi-square "
        "{chi_square:.0f} for {measurements} measurements). The measurement over {worst_s:g} s is "
        "farthest off, by {off_percent:+.0f} % or {off_deviations:.1f} standard deviations. "
        "Measure again."
    ),
    "speed_unsteady": (
        "The guest's speed differs by about {drift_percent:.0f} % between measurements. Measure "
        "the guest with the load that it will have during the migration."
    ),
    "curve_falls": (
        "The curve falls: {early_bytes} are dirty after {early_s:g} s, but {late_bytes} after "
        "{late_s:g} s. The guest changed between the measurements."
    ),
    "curve_grows": (
        "Dirty memory still grows by {growth_bytes_per_s} per second after {longest_s:g} s, the "
        "longest period. The prediction covers every size up to {most_bytes}, all memory that is "
        "not zero. Longer periods show more."
    ),
    "few_dirty_samples": (
        "At most {dirty:.0f} of {sampled:.0f} sampled pages were dirty, too few for a rate. Sample "
        "more pages per GiB, up to 16384, or measure longer."
    ),
    "dirty_ring_recounts": (
        "dirty-ring counts a page again each time QEMU empties the ring, every second or sooner. "
        "It cannot tell rarely written pages from often written pages. page-sampling can."
    ),
    # Assumptions about the host
    "link_assumed": (
        "The link carries 10 Gbit/s. To change it, add link=25gbit or link.bandwidth=40Gbit/s."
    ),
    "version_assumed": "The version is {version}. To change it, add migration=qemu_9_1.",
    "parameters_assumed": (
        "The migration parameters are QEMU's defaults without a bandwidth limit, because the "
        "profile has none."
    ),
    "auto_converge_assumed": "Auto-converge is on, because the profile has no capabilities.",
    "tracking_assumed": (
        "KVM tracks writes with tracking={tracking}, QEMU's default. If the VM has a dirty ring, "
        "add tracking=dirty_ring."
    ),
    "not_simulated": "gpusim does not simulate {features}, which this VM uses.",
    "unknown_names": "gpusim does not know {names} and ignores it.",
    "only_ram_downtime": (
        "The downtime covers RAM only. To add the time for device state, add "
        "link.non_ram_downtime_ms=20."
    ),
    "threads_limit_link": (
        "{threads} can send {threads_gbit_per_s:.3g} Gbit/s of the link's "
        "{link_gbit_per_s:.3g} Gbit/s. To use more, raise migration.multifd_channels."
    ),
    # Assumptions about the guest
    "fewer_members": (
        "gpusim simulated {members} of {wanted} migrations, because time was up. To simulate all, "
        "add --members {wanted}."
    ),
    "profile_note": "The profile says: {note}.",
    "zero_pages_assumed": (
        "No page is zero, because the profile has no zero pages. To change it, add zero_percent to "
        "the profile."
    ),
    "vcpus_assumed_busy": (
        "All vCPUs are always busy, because the profile has no utilisation. A throttle then slows "
        "all writes."
    ),
    "vcpus_idle": (
        "The vCPUs idle {idle_percent:.0f} % of the time. After a throttle they catch up."
    ),
    "tcg_speed": (
        "Under TCG the guest shares the host's cores with the migration. It writes {low:.2f} to "
        "{high:.2f} times as fast as measured."
    ),
    "speed_from_repeats": (
        "The guest's speed varies by {drift_percent:.0f} %, as it did between repeated measurements."
    ),
    "speed_assumed": (
        "The guest's speed varies by {drift_percent:.0f} %. No measurement was repeated."
    ),
}


def text_of(message: Message) -> str:
    """Return a message as one or two sentences."""
    data = {name: _value_text(name, value) for name, value in message.data.items()}
    if message.code == "threads_limit_link":
        channels = message.data["channels"]
        data["threads"] = count_noun(channels, "multifd channel") if channels else "One thread"
    return TEXTS[message.code].format_map(data)


def _value_text(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return join_words(value)
    return format_bytes(value) if name.endswith(("_bytes", "_bytes_per_s")) else value
