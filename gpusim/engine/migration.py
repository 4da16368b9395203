"""The loop of one migration: setup, turns of the main loop, switchover, cancel and give-up.

Guest, pages, QEMU's rules and the sender meet only here and in the objects that this loop owns. The
run jumps from event to event, so its cost follows decisions and not simulated seconds.
"""

from __future__ import annotations

from dataclasses import replace

from gpusim.config.backend import Backend
from gpusim.config.scenario import Scenario
from gpusim.engine.fallback_timer import FallbackTimer
from gpusim.engine.management import Management
from gpusim.engine.postcopy import LOAD_SHARE, Postcopy
from gpusim.engine.recorder import Recorder, RunEnd
from gpusim.engine.records import Observer, PostcopySummary, Result, Status, Verdict
from gpusim.engine.stall import STALL_SHARE, StallDetector
from gpusim.engine.state import MakeRunTime, MigrationState
from gpusim.engine.syncs import DirtySync, Syncs
from gpusim.guest.run_time import RunTime
from gpusim.policies.user_rule import UserSwitchover
from gpusim.qemu.process import Process
from gpusim.text import Message
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S
from gpusim.wall_limit import WallLimit, WallLimitReachedError

MOST_TURNS = 1000  # of the main loop at one time, under a user's switchover rule


class Migration:
    """One migration, which can run once.

    Args:
        scenario: what to simulate.
        backend: where the bitmaps live.
        process: the QEMU process, with what earlier migrations left in it.
        observe: is called with the progress, at most every 0.1 s of the wall clock.
        make_run_time: makes the vCPUs' run time from the clock and the latency of its ticks.
        limit: the wall-clock limit. None: the scenario's.
        is_estimate: take fewer and larger steps. A total time changes by up to 2 %.

    Attributes:
        state: the simulated parts.
        fallback_timer: the fallback sync's timer.
        reason: why the migration ended, once it has ended.
    """

    def __init__(
        self,
        scenario: Scenario,
        backend: Backend,
        *,
        process: Process | None = None,
        observe: Observer | None = None,
        make_run_time: MakeRunTime = lambda clock, latency: RunTime(latency),
        limit: WallLimit | None = None,
        is_estimate: bool = False,
    ) -> None:
        self.state = MigrationState(
            scenario,
            backend,
            process or Process(),
            make_run_time,
            limit,
            is_estimate=is_estimate,
        )
        self._recorder = Recorder(self.state, observe)
        self._syncs = Syncs(self.state, self._recorder, self._after_sync)
        self.fallback_timer = FallbackTimer(
            self.state, self._recorder, self._syncs, self._after_tick
        )
        self._management = Management(self.state, self._recorder, self._syncs.lock)
        self._stall = StallDetector(
            scenario.layout.pages,
            scenario.stall_after_ns,
            scenario.cycle_ns,
            is_estimate=is_estimate,
        )
        self.reason: Message | None = None
        self._turns_without_time = 0
        self._sent_to_ns = 0  # the sender is ahead of the clock while timers fire
        self._postcopy: Postcopy | None = None

    def run(self) -> Result:
        """Simulate the migration to its end, or until the wall-clock limit is reached."""
        try:
            return self._run()
        except WallLimitReachedError:
            self.state.clock.skip_to(self._sent_to_ns)
            return self._end("incomplete", None, Message("wall_limit"))

    def _run(self) -> Result:
        state, recorder, fallback = self.state, self._recorder, self.fallback_timer
        limit_ns = state.scenario.simulated_limit_ns
        self._setup()
        while True:
            began_ns = state.clock.now_ns
            to_ns = min(
                self._next_sync_ns(),
                recorder.next_link_change_ns(),
                self._management.next_ns(),
                limit_ns - self._management.skipped_ns,
            )
            waits = fallback.bursts_to_wait
            advanced = state.sender.advance(
                to_ns, state.pages, to_burst_end=waits, to_turn=state.starts_postcopy
            )
            self._syncs.writes.note_clears(advanced.clears)
            for wait_ns in advanced.lock_waits:
                self._syncs.count_sender_stall(*wait_ns)
            self._sent_to_ns = advanced.at_ns
            state.clock.run_to(advanced.at_ns)
            state.limit.check()  # a guest for which no time was left has no writers, and would converge
            if waits:
                fallback.go_on_after_bursts(advanced.bursts)
            recorder.sample_if_due()
            recorder.observe_if_due()
            ready = advanced.turn and not state.is_cancelled and self._take_turn()
            if state.is_cancelled:
                return self._cancel()
            if ready:
                return self._switch_over()
            if advanced.turn and self._switches_to_postcopy:
                return self._switch_to_postcopy()
            if self._stall.is_stalled:
                return self._end("ok", "not_converged", self._stall_reason())
            if self._passed_ns >= limit_ns:
                return self._end("ok", "time_limit", self._limit_reason())
            self._check_time_passes(began_ns)

    @property
    def _switches_to_postcopy(self) -> bool:
        """Whether a turn of the main loop that does not complete switches to post-copy."""
        in_time = self._passed_ns < self.state.scenario.simulated_limit_ns
        return self.state.starts_postcopy and self._syncs.unfinished is None and in_time

    @property
    def _passed_ns(self) -> int:
        """The time since the migrate command, with the time that was skipped."""
        return self.state.clock.now_ns + self._management.skipped_ns

    def close(self) -> None:
        """Free the bitmaps."""
        self.state.pages.close()

    def _next_sync_ns(self) -> int:
        return self.fallback_timer.next_sync_ns()

    def _setup(self) -> None:
        """Start tracking, arm the timers, and run the first sync, which finds every page dirty."""
        self._recorder.record_event("migrate_set_state", new_state="setup")
        self.fallback_timer.start()
        self._management.start()
        self.state.pages.start()
        self._syncs.run("setup")
        if self._syncs.unfinished is None:
            at_ns = self._syncs.lock.sync_until_ns
            self._recorder.record_event("migrate_set_state", at_ns=at_ns, new_state="active")

    def _take_turn(self) -> bool:
        """Take a turn of the main loop with a low estimate. Return whether to complete.

        Source: migration/migration.c:migration_iteration_run [7.2 to 11.1].
        """
        state = self.state
        threshold_bytes, pending_bytes = state.sender.threshold_bytes, state.pending_bytes
        self.fallback_timer.wait_until_idle(state.scenario.simulated_limit_ns)
        if state.is_cancelled or state.clock.now_ns >= state.scenario.simulated_limit_ns:
            return False
        if state.switchover.wants_sync(pending_bytes, threshold_bytes):
            self._syncs.run("exact")
            if self._syncs.unfinished is not None:
                return False
            pending_bytes, at_ns = state.pending_bytes, self._syncs.lock.sync_until_ns
            event = state.scenario.rules.pending_event
            self._recorder.record_event(event, at_ns=at_ns, size=pending_bytes)
        state.sender.iterate()
        if not state.switchover.ready(pending_bytes, threshold_bytes):
            return False
        if state.starts_postcopy and state.scenario.rules.prefers_postcopy:
            return False
        at_ns = max(state.clock.now_ns, self._syncs.lock.sync_until_ns)
        self._recorder.record_event(
            "migration_thread_low_pending", at_ns=at_ns, pending=pending_bytes
        )
        return True

    def _after_sync(self, sync: DirtySync) -> None:
        """Let everyone who follows the syncs act. Nobody acts on the final one but the timer."""
        if sync.kind == "setup":
            self.fallback_timer.after_setup(sync.end_ns)
        if sync.period is not None:
            self.fallback_timer.after_period(sync.end_ns)
        if sync.kind == "final":
            return
        self._management.do_actions_of_sync(sync.end_ns)
        if sync.kind != "setup":
            skips = self._may_skip()
            self._stall.after_sync(
                sync.start_ns,
                self.state.pages.cursor.wraps,
                sync.pending_pages,
                throttle_is_final=self.state.throttle.exhausted
                and (skips or not self._management.may_still_act),
            )
            if self._stall.is_stalled and skips:
                left_ns = self.state.scenario.simulated_limit_ns - self._passed_ns
                self._management.skip_waiting(max(0, left_ns))
                self._stall.start_again()
        self._management.poll_after_sync(sync.kind, sync.end_ns)

    def _may_skip(self) -> bool:
        """Whether nothing but an action of management at a later time can change the migration."""
        is_allowed = self.state.scenario.config.limit.skip_waiting
        link_stays = self._recorder.next_link_change_ns() == NEVER_NS
        return is_allowed and link_stays and self._management.waits

    def _after_tick(self) -> None:
        self._management.go_on_after_tick()

    def _switch_over(self) -> Result:
        """Stop the VM, run the final sync, send the rest, and complete.

        The big lock is held to the end, so no timer fires and management gets no answer.

        Source: migration/migration.c:migration_completion [7.2 to 10.1].
        """
        state, recorder = self.state, self._recorder
        if (ended := self._wait_to_stop()) is not None:
            return ended
        stop_ns = state.vm_stopped_ns = state.clock.now_ns
        self.fallback_timer.stop()
        self._management.stop()
        state.clock.stop_vm()
        recorder.record_event("migration_completion_vm_stop")
        recorder.record_event("migrate_set_state", new_state="device")
        self._syncs.run("final")
        clears = state.scenario.rules.clears_in_last_stage
        drained_ns = state.sender.drain(state.pages, clears=clears)
        non_ram_ns = state.scenario.link.non_ram_downtime_ns
        state.clock.run_to(self._syncs.lock.sync_until_ns + drained_ns + non_ram_ns)
        recorder.record_event("migrate_set_state", new_state="completed")
        downtime_ms = (state.clock.now_ns - stop_ns) / NS_PER_MS
        reason = Message(
            "converged",
            {
                "time_s": self._passed_ns / NS_PER_S,
                "passes": state.pages.cursor.wraps + 1,
                "throttle_percent": state.run_time.percent,
                "downtime_ms": downtime_ms,
                "downtime_limit_ms": state.parameters.downtime_limit_ms,
                "pause_s": (stop_ns - state.clock.vm_ns(stop_ns)) / NS_PER_S,
            },
        )
        return self._end("ok", "converged", reason, stop_ns, downtime_ms)

    def _wait_to_stop(self) -> Result | None:
        """Wait for the big lock. Return the result if the migration ends before the VM stops."""
        state = self.state
        state.clock.run_to(max(state.clock.now_ns, self._syncs.lock.sync_until_ns))
        # A tick that waited for the big lock may sync first. The VM stops after that sync.
        self.fallback_timer.wait_until_idle(state.scenario.simulated_limit_ns)
        if state.is_cancelled:  # while the last exact sync ran
            return self._cancel()
        if self.fallback_timer.sync is not None:
            return self._end("ok", "time_limit", self._limit_reason())
        return None

    def _switch_to_postcopy(self) -> Result:
        """Stop the VM, let it run at the target, and send until the last page has arrived.

        Source: migration/migration.c:postcopy_start, postcopy_completion [7.2 to 11.1].
        """
        state, recorder = self.state, self._recorder
        if (ended := self._wait_to_stop()) is not None:
            return ended
        stop_ns = state.vm_stopped_ns = state.clock.now_ns
        self.fallback_timer.stop()
        self._management.begin_postcopy()
        state.clock.stop_vm()
        recorder.record_event("postcopy_start")
        recorder.record_event("migrate_set_state", new_state="device")
        self._syncs.run("final")
        state.clock.run_to(self._syncs.lock.sync_until_ns)
        self._syncs.writes.settle(stop_ns)
        postcopy = self._postcopy = Postcopy(state, recorder, self._management.next_ns)
        recorder.record_event("ram_postcopy_send_discard_bitmap", runs=postcopy.runs)
        load_ns = round(state.scenario.link.non_ram_downtime_ns * LOAD_SHARE)
        save_ns = state.scenario.link.non_ram_downtime_ns - load_ns
        state.clock.run_to(state.clock.now_ns + postcopy.discard_ns + save_ns)
        downtime_ns = state.clock.now_ns - stop_ns
        postcopy.downtime_ms = downtime_ns / NS_PER_MS
        active_ns = state.clock.now_ns
        resumes_ns = active_ns + load_ns + state.scenario.postcopy.resume_ns
        self._management.go_on_in_postcopy()
        if state.scenario.rules.has_postcopy_device:
            recorder.record_event("migrate_set_state", new_state="postcopy-device")
            active_ns = resumes_ns
        recorder.record_event("migrate_set_state", at_ns=active_ns, new_state="postcopy-active")
        is_whole = postcopy.run(resumes_ns)
        self._management.stop()
        if not is_whole:
            reason = self._limit_reason()
            if state.link_is_lost:
                reason = Message("postcopy_paused", reason.data)
            return self._end("ok", "time_limit", reason)
        recorder.record_event("migration_completion_postcopy_end")
        recorder.record_event("migrate_set_state", new_state="completed")
        data = {
            "time_s": self._passed_ns / NS_PER_S,
            "switch_s": (stop_ns + self._management.skipped_ns) / NS_PER_S,
            "downtime_ms": downtime_ns / NS_PER_MS,
            "postcopy_s": (state.clock.now_ns - stop_ns - downtime_ns) / NS_PER_S,
        }
        return self._end("ok", "converged", Message("postcopy", data))

    def _cancel(self) -> Result:
        """End as cancelled, once the migration thread wakes and notices.

        The VM runs on at the source, and so does the process with what the migration left in it.
        """
        clock = self.state.clock
        clock.run_to(max(clock.now_ns, self.state.sender.awake_ns))
        self._stop_throttle()
        self.fallback_timer.cancel()
        self._note_last_count()
        cause = self._management.cancelled_by
        new_state = "failed" if cause.code == "link_lost" else "cancelled"
        self._recorder.record_event("migrate_set_state", new_state=new_state)
        reason = Message(cause.code, {**cause.data, "time_s": self._passed_ns / NS_PER_S})
        return self._end("ok", "cancelled", reason)

    def _stop_throttle(self) -> None:
        """Stop the throttle without a switchover. A flag that a tick has just set stays set.

        Source: migration/cpu-throttle.c:cpu_throttle_stop, cpu_throttle_thread [7.2 to 10.1].
        """
        state, run_time = self.state, self.state.run_time
        vm_ns = state.clock.vm_ns(state.clock.now_ns)
        if run_time.percent and run_time.is_tick(vm_ns):
            state.process.throttle_thread_scheduled = True

    def _note_last_count(self) -> None:
        self.state.process.dirty_sync_count = self.state.accounting.dirty_sync_count

    def _end(
        self,
        status: Status,
        verdict: Verdict | None,
        reason: Message,
        stop_ns: int | None = None,
        downtime_ms: float | None = None,
    ) -> Result:
        """End now. `stop_ns` is when the switchover stopped the VM, if there was one."""
        self.reason = reason
        if self._postcopy is not None:
            stop_ns, downtime_ms = self.state.vm_stopped_ns, self._postcopy.downtime_ms
        clock, limit_ns = self.state.clock, self.state.scenario.simulated_limit_ns
        if stop_ns is None:  # a sync that the migration thread has begun ends first
            clock.skip_to(min(self._syncs.lock.sync_until_ns, limit_ns))
        self._syncs.end_stalls()
        vm_ended_ns = self.state.clock.now_ns if stop_ns is None else stop_ns
        if status != "incomplete":
            self._syncs.writes.settle(vm_ended_ns)
        self._syncs.count_reaper_holds(clock.vm_ns(vm_ended_ns))
        for sync in (self._syncs.unfinished, self.fallback_timer.sync):
            if sync is not None:
                self._syncs.cut(sync)
        if verdict in ("not_converged", "time_limit"):
            # The next attempt, if there is one, begins after this migration has failed. A failed
            # migration leaves what a cancelled one leaves: both end in migration_iteration_finish.
            self._stop_throttle()
            self.fallback_timer.fail()
            self._note_last_count()
        end = RunEnd(
            status=status,
            verdict=verdict,
            reason=reason,
            vm_ended_ns=vm_ended_ns,
            downtime_ms=downtime_ms,
            skipped_ns=self._management.skipped_ns,
            postcopy=self._postcopy_summary(),
        )
        not_done = self._management.actions_not_done
        if self._postcopy is None:
            return self._recorder.make_result(end, not_done)
        return self._recorder.make_result(
            end, not_done, self._postcopy.samples, self._postcopy.latency_counts()
        )

    def _postcopy_summary(self) -> PostcopySummary:
        """Return what post-copy did. The switch counts the time that was skipped before it."""
        if self._postcopy is None:
            return PostcopySummary()
        found, skipped_s = self._postcopy.summary(), self._management.skipped_ns / NS_PER_S
        return replace(found, postcopy_start_s=(found.postcopy_start_s or 0.0) + skipped_s)

    def _check_time_passes(self, began_ns: int) -> None:
        """Refuse a user's switchover rule under which the main loop turns and no time passes.

        Once everything is sent, a turn takes no time, and QEMU's own rules stop the VM.
        """
        state = self.state
        passes = state.clock.now_ns > began_ns
        self._turns_without_time = 0 if passes else self._turns_without_time + 1
        if self._turns_without_time > MOST_TURNS and isinstance(state.switchover, UserSwitchover):
            raise state.switchover.refuse_turns(state.clock.now_ns, state.pending_bytes)

    def _stall_reason(self) -> Message:
        percent = self.state.run_time.percent
        code = "throttle_at_maximum" if percent else "no_throttle_to_raise"
        over_ns, over_passes = self._stall.over
        return Message(
            code,
            {
                "throttle_percent": percent,
                "over_s": over_ns // NS_PER_S,
                "over_passes": over_passes,
                "less_than_percent": round(100 * (1 - STALL_SHARE)),
                "smallest_bytes": self._stall.smallest_pages * self.state.scenario.page_bytes,
                "threshold_bytes": self.state.sender.threshold_bytes,
            },
        )

    def _limit_reason(self) -> Message:
        return Message(
            "simulated_limit",
            {
                "time_s": self._passed_ns / NS_PER_S,
                "remaining_bytes": self.state.remaining_bytes,
                "throttle_percent": self.state.run_time.percent,
            },
        )
