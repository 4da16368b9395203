"""The text of each message code of a prediction: its assumptions, and notes on the tools' commands."""

from __future__ import annotations

from collections.abc import Mapping

from gpusim.text import Message, count_noun, join_words

TEXTS: Mapping[str, str] = {
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
    data = {
        name: join_words(value) if isinstance(value, tuple) else value
        for name, value in message.data.items()
    }
    if message.code == "threads_limit_link":
        channels = message.data["channels"]
        data["threads"] = count_noun(channels, "multifd channel") if channels else "One thread"
    return TEXTS[message.code].format_map(data)
