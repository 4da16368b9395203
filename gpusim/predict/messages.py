"""The text of each message code of a prediction: warnings, assumptions, advice and notes on tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpusim.engine.records import Summary
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.text import Message, format_duration, format_number, join_words
from gpusim.units import format_bytes

TEXTS: Mapping[str, str] = {
    # Warnings about the profile: gpusim/fit/profile_warnings.py
    "measurements_noisy": (
        "No mixture of writers explains the measurements (chi-square {chi_square:.0f} for "
        "{measurements}). The one over {worst_s} is off by {off_percent}. Measure again."
    ),
    "speed_unsteady": (
        "The guest's speed differs by {drift_percent} between measurements. Measure it under the "
        "load that it will have during the migration."
    ),
    "curve_falls": (
        "{early_bytes} were dirty after {early_s} and only {late_bytes} after {late_s}. The guest "
        "changed between the measurements. Measure again."
    ),
    "curve_grows": (
        "Dirty memory still grows by {growth_bytes_per_s} at the end of the longest period, "
        "{longest_s}. The prediction covers all sizes up to {most_bytes}. Measure longer periods."
    ),
    "few_dirty_samples": (
        "At most {dirty:.0f} of {sampled:.0f} sampled pages were dirty, which is too few for a "
        "rate. Sample more pages per GiB (up to 16384), or measure longer periods."
    ),
    "dirty_ring_recounts": (
        "dirty-ring counts a page again each time QEMU empties the ring. Pages written often look "
        "like pages written once per second. Measure with page-sampling to tell them apart."
    ),
    # Assumptions about the host: settings.py
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
    "fleet_sender": (
        "The host sends {low_bytes_per_s} to {high_bytes_per_s} of guest memory. To narrow this, add "
        "link.page_cost_ns=2580, or migration.multifd_channels=8 if the VMs migrate so."
    ),
    "fleet_vcpus_assumed": (
        "VMs without a number of vCPUs count with {vcpus}. It decides the downtime for all but RAM "
        "and the loss. To change it, add --vcpus N."
    ),
    "tls_assumed": "The VM migrates with TLS, so each sending thread is slower.",
    "not_simulated": "gpusim does not simulate {features}, which this VM uses.",
    "unknown_names": "gpusim ignores these unknown names: {names}.",
    # Costs of the host that each member draws: host_costs.py
    "zero_page_scan_drawn": (
        "A thread recognises zero pages at {low_bytes_per_s} to {high_bytes_per_s}. To state it, "
        "add link.zero_page_scan=16.7GB/s."
    ),
    "zero_page_scan_measured": (
        "A thread recognises zero pages at {low_bytes_per_s} to {high_bytes_per_s}, as in the "
        "earlier migration. To state it, add link.zero_page_scan=16.7GB/s."
    ),
    "page_cost_ns_drawn": (
        "A thread needs {low:.0f} to {high:.0f} ns for a page that is not zero. To state it, add "
        "link.page_cost_ns=2580."
    ),
    "non_ram_downtime_ms_drawn": (
        "Everything but RAM adds {low:.0f} to {high:.0f} ms to the downtime. To state it, add "
        "link.non_ram_downtime_ms=50. For VFIO devices, add vm.vfio_devices=1."
    ),
    "first_write_cost_ns_drawn": (
        "A vCPU needs {low:.0f} to {high:.0f} ns for the first write to a protected page. To state "
        "it, add tracking.first_write_cost_ns=224."
    ),
    "first_write_serial_percent_drawn": (
        "In {low:g} to {high:g} % of this time the vCPU holds a lock, so that others wait. To state "
        "it, add tracking.first_write_serial_percent=2.5."
    ),
    # Costs of post-copy that each member draws: postcopy_costs.py
    "fault_us_drawn": (
        "In post-copy a fault takes {low:g} to {high:g} us without a queue. To state it, add "
        "postcopy.fault_us=45."
    ),
    "request_us_drawn": (
        "QEMU's threads need {low:g} to {high:g} us for a requested page. To state it, add "
        "postcopy.request_us=10."
    ),
    "discard_us_drawn": (
        "The target needs {low:g} to {high:g} us to drop a run of pages. To state it, add "
        "postcopy.discard_us=1.98."
    ),
    "resume_ms_drawn": (
        "The guest starts at the target {low:g} to {high:g} ms after the load of its devices. To state "
        "it, add postcopy.resume_ms=420."
    ),
    "reads_drawn": (
        "The guest reads {low:g} to {high:g} pages per page that it writes, in the same memory. No "
        "profile says what a guest reads."
    ),
    # Precopy beside post-copy: postcopy_text.py
    "postcopy_vfio": "Post-copy is not possible: a VM with VFIO devices cannot switch to it.",
    "postcopy_manager": "Post-copy is not possible: the manager does not have it.",
    "postcopy_multifd": (
        "Post-copy is not possible: {version} refuses it beside multifd (since QEMU 10.1). To compare "
        "it, add migration.multifd_channels=0."
    ),
    "postcopy_version": "Post-copy is not possible: {version} does not have it (since QEMU 2.6).",
    "postcopy_recommended": (
        "Precopy with auto-converge {does} for {precopy} of {guests} guests, and post-copy for all of "
        "them. To use post-copy, set {settings}."
    ),
    "postcopy_not_needed": (
        "Precopy with auto-converge is enough for all {guests} guests, and has no such risk."
    ),
    "postcopy_unknown": (
        "Runs of precopy that were stopped as too long: {cut} of {guests}. To let them take longer, add "
        "--effort 2."
    ),
    "postcopy_for_some": (
        "Precopy with auto-converge {does} for {precopy} of {guests} guests, and post-copy for {keeping}."
    ),
    "postcopy_risk": (
        "Post-copy has a risk. For {low_s} to {high_s} after the switch each host holds a part of the "
        "guest. A lost link stops the guest until migrate-recover. If the link does not come back, or a "
        "host is lost, the VM is lost."
    ),
    "postcopy_unmeasured": (
        "Nobody measured what post-copy costs here. Drawn for each guest: {costs}. To state a cost, "
        "add it like postcopy.fault_us=45."
    ),
    # What the manager will do: manager_plan.py
    "nova_plan_steps": (
        "Nova allows {first_ms} ms of downtime at once, and more every {wait_s}: {last_ms} ms after "
        "{steps} steps and {last_s}."
    ),
    "kubevirt_plan_ramp": (
        "KubeVirt allows {first_ms} ms of downtime at once. After {syncs} syncs it allows more every "
        "{cooldown_s}, up to {last_ms} ms after {steps} steps."
    ),
    "kubevirt_plan_stall": (
        "KubeVirt allows {first_ms} ms of downtime. If the migration makes no progress for "
        "{stall_s}, it allows {last_ms} ms, or aborts if that is too little."
    ),
    "proxmox_plan_doubles": (
        "Proxmox VE allows {first_ms} ms of downtime. It doubles that each time that more memory is "
        "left at six polls than at the polls before them."
    ),
    "ovirt_plan_abort": (
        "oVirt allows {first_ms} ms of downtime at once, and more with each iteration that it sees, "
        "up to {last_ms} ms. It aborts at the next iteration."
    ),
    "ovirt_plan_post_copy": (
        "oVirt allows {first_ms} ms of downtime at once, and more with each iteration that it sees, "
        "up to {last_ms} ms. At the next iteration it switches to post-copy."
    ),
    "cloud_hypervisor_plan": (
        "Cloud Hypervisor allows {limit_ms} ms of downtime (downtime_ms of send-migration). It checks "
        "that and its timeout (timeout_s, timeout_strategy) at the end of an iteration."
    ),
    "manager_abort": "{tool} aborts the migration after {timeout_s}.",
    "manager_pause": "{tool} pauses the VM after {timeout_s}, until the migration ends.",
    "manager_force": "{tool} allows 2000 s of downtime after {timeout_s}.",
    "manager_post_copy": "{tool} switches to post-copy after {timeout_s}.",
    "manager_without_timeout": "{tool} has no timeout.",
    "waiting_skipped": (
        "A migration stalls and waits for {skipped_s} (median), which gpusim does not simulate. "
        "The total time counts this time. Sent data and CPU lost leave it out."
    ),
    # Assumptions about the guest and the runs: ensemble.py
    "fewer_members": (
        "gpusim simulates {members} migrations and not {wanted}, because the VM is large. For more, "
        "add --members {wanted}."
    ),
    "profile_note": "The profile says: {note}.",
    "zero_pages_assumed": (
        "No page is zero, because the profile has no zero pages. To change it, add zero_percent to "
        "the profile."
    ),
    "utilisation_drawn": (
        "The vCPUs are busy {low_percent} to {high_percent} of the time, because the profile has no "
        "utilisation. Those that idle catch up after a throttle. To state it, add utilisation to "
        "the profile."
    ),
    "load_ends": (
        "The guest's load ends {low_s} to {high_s} after the start of the migration. In the earlier "
        "migration it ended after {seen_s}."
    ),
    "run_to_run": (
        "Another migration finds another guest: its speed and the pages that are not zero differ by "
        "{vary_percent}."
    ),
    "utilisation_from_throttle": (
        "The vCPUs are busy {low_percent} to {high_percent} of the time, because the throttle of the "
        "earlier migration slowed the guest as much."
    ),
    "guest_wrote_nothing": (
        "The guest writes nothing, because it wrote nothing during the earlier migration. It was "
        "idle or paused."
    ),
    "vcpus_idle": "The vCPUs idle {idle_percent} of the time. After a throttle they catch up.",
    "vcpus_in_turn": (
        "All {vcpus} vCPUs sleep at once. In QEMU each takes the big lock in turn. If a turn takes "
        "more than {turn_us:.0f} us, then some vCPUs skip every other sleep. To state it, set "
        "vm.big_lock_us_per_vcpu in gpusim."
    ),
    "tcg_speed": (
        "Under TCG the guest shares the host's cores with the migration. It writes {low:.2f} to "
        "{high:.2f} times as fast as measured."
    ),
    "speed_from_repeats": (
        "The guest's speed varies by {drift_percent}, as it did between repeated measurements."
    ),
    "speed_assumed": (
        "The guest's speed varies by {drift_percent} from the measurements to the migration."
    ),
    "guests_in_bursts": (
        "{members} of {of} simulated guests write in bursts, with pauses between them, because that "
        "explains the measurements."
    ),
    # Notes on the limits of settings: advice_text.py
    "channels_needed": "{value} needs {also}, because fewer threads cannot send that fast.",
    "setting_needed": "{value} needs {also}.",
    "limit_has_exceptions": "With {value} the migration does not converge, but with {others} it does.",
    "changes_untried": (
        "Not known whether {changes} would help: a user's rule failed in that run, or the run needed more "
        "steps than it may take, which a higher --effort raises."
    ),
    "values_untried": "* A value between could not be simulated, because a user's rule failed.",
    "guests_untried": "There is no advice, because a user's rule failed over expected shares.",
    "runs_cut": (
        "Runs that were stopped as too long: {runs}. For a limit they count as not converging. A higher "
        "--effort lets runs take longer, and so does limit.wall if you set it."
    ),
    "fallback_sync_without_effect": "QEMU's fallback sync has no effect here: {with_it}.",
    "fallback_sync_effect": (
        "With QEMU's fallback sync ({change}): {with_it}. Without it: {without_it}."
    ),
    # Better settings for a goal: advice_text.py
    "goal_unknown": "There are no better settings, because a user's rule failed over expected shares.",
    "goal_gain": (
        "The {quantity} of the {guest} falls from {before} to {after} (by {gain_percent}){doubt}.{all} "
        "Best of {runs} runs."
    ),
    "goal_makes_converge": (
        "With the present settings the {guest} does not converge. With the better ones it does{doubt}."
        "{all} Best of {runs} runs."
    ),
    "goal_keeps_bounds": (
        "With the present settings the {guest} does not converge within {bounds}. With the better ones "
        "it does{doubt}.{all} Best of {runs} runs."
    ),
    "goal_for_all": (
        "{keeping} of {members} simulated migrations {keep} with them, and {keeping_now} now. Their mean "
        "{quantity} is {value}, and {value_now} now."
    ),
    "goal_not_for_all": (
        "There are no better settings. Some of {runs} help the {guest}, and not all simulated "
        "migrations: {keeping} of {members} {keep} with the best of them, and {keeping_now} now. Their "
        "mean {quantity} is {value}, and {value_now} now."
    ),
    "goal_never_converges": "None of {runs} settings makes the {guest} converge.",
    "goal_nothing_better": "None of {runs} settings is better than the present ones.",
    "goal_misses_bounds": (
        "With none of {runs} settings does the {guest} converge within {bounds}. Present "
        "settings: {now}."
    ),
    "goal_first_pass_too_long": (
        "The first pass alone takes {first_pass_s}, and no throttle shortens it."
    ),
    "goal_postcopy": (
        "With migration.postcopy_ram=true migration.start_postcopy=1pass it does: {outcome}. After the "
        "switch a lost link stops the guest."
    ),
    "goal_unfinished": "A user's rule failed, so gpusim did not try all settings.",
    "goal_for_p95_guest": "95th-percentile guest: {outcome}. Present settings: {now}.",
    "goal_fails_p95_guest": (
        "The better settings are not sufficient for the 95th-percentile guest: {outcome}. Present "
        "settings: {now}."
    ),
    "goal_without_timeouts": (
        "The commands below set no timeouts. To get timeouts, predict again with these settings."
    ),
    # Notes on the commands of tools: commands.py
    "multifd_on_destination": "Set multifd and multifd-channels on the destination too.",
    "qemu_2_6_names": (
        "In QEMU 2.6 the throttle parameters are x-cpu-throttle-initial and "
        "x-cpu-throttle-increment. migrate_set_speed and migrate_set_downtime (in seconds) set the "
        "other two."
    ),
    "fallback_interval_fixed": (
        "No parameter of QEMU sets the interval of the fallback sync ({interval} was simulated)."
    ),
    "bandwidth_rounded": "The bandwidth of {mib:.2f} MiB/s is rounded to {rounded} MiB/s.",
    "switchover_version": "--available-switchover-bandwidth needs libvirt 11.1 or newer.",
    "virsh_setspeed": (
        "To change the bandwidth during the migration: virsh migrate-setspeed DOMAIN {mib} (MiB/s)."
    ),
    "virsh_timeout": (
        "--timeout {seconds} --timeout-suspend suspends the VM if the migration takes longer than "
        "19 of 20 migrations do."
    ),
    "cannot_set": "{tool} cannot set {settings}.",
    "virsh_cannot_set": (
        "virsh cannot set {settings}. virsh qemu-monitor-command can, but libvirt does not "
        "support it."
    ),
    "nova_raises_downtime": (
        "Nova raises the downtime limit in steps: to {limit_ms} ms after {limit_after_seconds} s, "
        "and to {most_ms} ms after {most_after_seconds} s."
    ),
    "nova_timeout": (
        "live_migration_completion_timeout is in seconds per GiB: {seconds} s for this VM. It "
        "applies to all VMs of the host, so keep a higher value (default 800)."
    ),
    "nova_parallel_version": "live_migration_parallel_connections needs Nova 33 (2026.1) or newer.",
    "start_postcopy_after_passes": (
        "Send migrate-start-postcopy after the first pass, when dirty-sync-count in query-migrate "
        "is {count}."
    ),
    "start_postcopy_after_s": "Send migrate-start-postcopy {after_s} after migrate.",
    "start_postcopy_at_throttle": (
        "Send migrate-start-postcopy when cpu-throttle-percentage in query-migrate is {throttle_percent}."
    ),
    "start_postcopy_by_hand": "migrate-start-postcopy switches to post-copy. It is permitted only.",
    "postcopy_on_destination": "Set postcopy-ram on the destination too, before migrate-incoming.",
    "virsh_migrate_postcopy": (
        "virsh migrate-postcopy DOMAIN, in another shell, switches to post-copy at any time."
    ),
    "virsh_cannot_preempt": "virsh has no option for postcopy-preempt.",
    "nova_postcopy": (
        "Nova switches to post-copy {seconds} s after the start, and with nova "
        "live-migration-force-complete at any time. The timeout applies to all VMs of the host."
    ),
    "kubevirt_postcopy": (
        "KubeVirt switches to post-copy {seconds} s after the start. With multifd it needs QEMU 10.1."
    ),
    "no_time_of_switch": "{tool} switches to post-copy by a time only. The simulation used {start}.",
    "nova_auto_converge": (
        "Nova uses auto-converge only if post-copy is not permitted or not available."
    ),
    "kubevirt_label": "The policy applies to VMs with the label migration: predicted.",
    "kubevirt_timeout": (
        "completionTimeoutPerGiB is rounded up (default 150). KubeVirt counts GB of 10^9 bytes: "
        "{seconds} s for this VM."
    ),
    "kubevirt_progress_timeout": (
        "Only spec.configuration.migrations sets progressTimeout (150 s). It aborts a migration whose "
        "remaining memory falls between no two polls of 0.4 s for that long, as if the link were "
        "dead. Slow convergence does not set it off."
    ),
    "kubevirt_downtime": (
        "To allow {limit_ms} ms of downtime, set maxDowntimeMs. It needs a release with the feature "
        "gate MigrationStallDetection. Other releases allow 300 ms."
    ),
    "kubevirt_channels": (
        "KubeVirt uses {used} multifd channels, or none if the VM's CPU is limited. The simulation "
        "used {simulated}."
    ),
}


def text_of(message: Message) -> str:
    """Return a message as sentences. The suffix of a key of its data tells the unit."""
    data = {key: _shown(key, value) for key, value in message.data.items()}
    return TEXTS[message.code].format_map(data)


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, Summary):
        return outcome_with_loss(value)
    if isinstance(value, tuple):
        return join_words(value)
    if isinstance(value, Mapping):  # of settings: (value, QEMU's default)
        return join_words(
            [f"{name} ({one} here, QEMU's default {other})" for name, (one, other) in value.items()]
        )
    if key.endswith("_bytes_per_s"):
        return f"{format_bytes(value)}/s"
    if key.endswith("_bytes"):
        return format_bytes(value)
    if key.endswith("_percent"):
        return f"{format_number(value)} %"
    return format_duration(value) if key.endswith("_s") and "_per_" not in key else value


def outcome_text(summary: Summary) -> str:
    """Return how a migration ends: "90 s, throttle 50 %", or that it does not converge."""
    if summary.verdict == "time_limit":
        return f"does not end within {format_duration(summary.total_time_s)}"
    if summary.verdict != "converged":
        return "does not converge"
    return time_and_throttle(summary.total_time_s, summary.max_throttle_percent)


def outcome_with_loss(summary: Summary) -> str:
    """Return how a migration ends, with the CPU time that the guest loses."""
    if summary.verdict != "converged":
        return outcome_text(summary)
    loss = RUN_FIELDS["guest_cpu_lost_percent"].format(summary.guest_cpu_lost_percent)
    return f"{outcome_text(summary)}, guest CPU lost {loss}"


def time_and_throttle(total_s: float, throttle_percent: int) -> str:
    """Return "90 s, throttle 50 %" or "90 s, no throttle"."""
    throttle = f"throttle {throttle_percent} %" if throttle_percent else "no throttle"
    return f"{format_duration(total_s)}, {throttle}"
