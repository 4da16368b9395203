// QEMU's precopy with auto-converge and the fallback sync, page by page and event by event.
//
// It is written from QEMU's structure and not from gpusim's code. Every page is sent by itself, and
// the main loop gets its turn after each. It prints a line for each dirty sync and one for the end.
//
// Source: migration/migration.c, ram.c, cpu-throttle.c, savevm.c [2.6, 7.2, 9.1 to 10.1].
#include <cstdio>

#include "guest.hpp"
#include "sender.hpp"

constexpr Ns WINDOW_NS = 100 * NS_PER_MS;  // BUFFER_DELAY
constexpr Ns LONGEST_BURST_MS = 50;        // MAX_WAIT

// A QMP command of the schedule.
struct Action {
    Ns at_ns;              // -1: not known yet
    std::int64_t at_sync;  // -1: at a time
    std::string what;
    double value;
};

class Migration {
  public:
    explicit Migration(const Keys &keys)
        : keys_(keys), memory_(keys), guest_(keys), page_bytes_(keys.whole("page_bytes")),
          link_(keys, page_bytes_), file_(keys.whole("counts_flushed_bytes")),
          channels_(keys, page_bytes_) {
        for (const std::string &line : keys.all("action")) {
            std::istringstream words(line);
            Action action;
            words >> action.at_ns >> action.at_sync >> action.what >> action.value;
            actions_.push_back(action);
        }
        set_max_bandwidth(max_bandwidth_);
    }

    // migration.c:migration_thread
    void run() {
        if (timer_exists_ && !timer_polls_ && !timer_starts_with_period_) start_timer(0);
        sync("setup");
        if (timer_exists_ && timer_polls_) start_timer(now_ns());
        while (true) {
            link_.change_up_to(now_ps_);
            run_main_loop_to(now_ns());
            if (is_cancelled_) return cancel();
            if (now_ns() >= limit_ns_) return end("time_limit", now_ns());
            if (!rate_exceeded()) {
                Bytes pending = memory_.pending * page_bytes_;
                if (pending < threshold_) {
                    wait_for_main_loop();
                    if (is_cancelled_) return cancel();
                    if (now_ns() >= limit_ns_) return end("time_limit", now_ns());
                    sync("exact");
                    pending = memory_.pending * page_bytes_;
                }
                if (ready_if_equal_ ? pending <= threshold_ : !pending || pending < threshold_)
                    return complete();
                send_burst();
                if (is_cancelled_) return cancel();
                if (now_ns() >= limit_ns_) return end("time_limit", limit_ns_);
            }
            close_window_if_due();
            if (rate_exceeded()) {
                sleep_to_end_of_window();
                if (is_cancelled_) return cancel();
                close_window_if_due();
            }
        }
    }

  private:
    // ---- clocks

    Ns now_ns() const { return (now_ps_ + PS_PER_NS - 1) / PS_PER_NS; }
    Ns vm_ns(Ns at) const { return (paused_at_ns_ >= 0 ? paused_at_ns_ : at) - paused_ns_; }
    void let_guest_write(Ns at) {
        if (!vm_has_stopped_) guest_.run_to(vm_ns(at), memory_);
    }

    // ---- the migration thread

    void set_max_bandwidth(Bytes bytes_per_s) { window_budget_ = bytes_per_s / 10; }

    Bytes counted() {
        if (channels_.count) file_.counted += channels_.written_by(now_ps_);
        return file_.counted;
    }

    bool rate_exceeded() { return window_budget_ && counted() - window_counted_ > window_budget_; }

    // migration.c:migration_update_counters. QEMU counts whole milliseconds.
    void close_window_if_due() {
        Ps length_ps = now_ps_ - window_start_ps_;
        if (whole_ms_) length_ps = (now_ms() - window_start_ms()) * NS_PER_MS * PS_PER_NS;
        if (length_ps < WINDOW_NS * PS_PER_NS) return;
        const double sent = double(counted() - window_counted_);
        const double bytes_per_ms = sent * (PS_PER_S / 1000) / double(length_ps);
        const double expected =
            switchover_bandwidth_ ? double(switchover_bandwidth_ / 1000) : bytes_per_ms;
        threshold_ = Bytes(expected * double(downtime_limit_ms_));
        window_start_ps_ = now_ps_;
        window_counted_ = counted();
    }

    Ns now_ms() const { return now_ns() / NS_PER_MS; }
    Ns window_start_ms() const { return window_start_ps_ / PS_PER_NS / NS_PER_MS; }

    // migration.c:migration_rate_limit. A fallback sync that merges now does not wake the thread.
    void sleep_to_end_of_window() {
        Ps until_ps = window_start_ps_ + WINDOW_NS * PS_PER_NS;
        if (whole_ms_)
            until_ps = now_ps_ + (window_start_ms() + 100 - now_ms()) * NS_PER_MS * PS_PER_NS;
        until_ps += wakeup_latency_ns_ * PS_PER_NS;
        while (now_ps_ < until_ps) {
            const Ns next_ns = next_main_loop_ns();
            if (next_ns >= limit_ns_ || next_ns * PS_PER_NS > until_ps) {
                now_ps_ = std::max(now_ps_, std::min(until_ps, limit_ns_ * PS_PER_NS));
                break;
            }
            run_main_loop_to(next_ns);
            if (is_cancelled_) {
                now_ps_ = std::max(now_ps_, until_ps);
                break;
            }
            now_ps_ = std::max(now_ps_, next_ns * PS_PER_NS);
        }
    }

    // ram.c:ram_save_iterate, which holds the bitmap's mutex.
    void send_burst() {
        now_ps_ = std::max(now_ps_, mutex_held_until_ns_ * PS_PER_NS);
        run_main_loop_to(now_ns());
        if (is_cancelled_) return;
        in_burst_ = true;
        const Ps start_ps = now_ps_;
        uncounted_ps_ = 0;
        for (std::int64_t page = 0; !rate_exceeded() && now_ns() < limit_ns_; page++) {
            const Pages found = find_page();
            if (found < 0) break;
            send_page(found, /*clears=*/true);
            if (page % 64 == 0) {
                const Ps spent_ps = now_ps_ - start_ps - uncounted_ps_;
                if (spent_ps / PS_PER_NS / NS_PER_MS > LONGEST_BURST_MS) break;
            }
            link_.change_up_to(now_ps_);
            const Ns merged_before_ns = merged_ns_;
            run_main_loop_to(now_ps_ / PS_PER_NS);
            if (is_cancelled_) break;
            if (merged_ns_ != merged_before_ns) {  // the merge took the mutex out of the burst
                now_ps_ += merge_ns_ * PS_PER_NS;
                uncounted_ps_ += merge_ns_ * PS_PER_NS;
            }
        }
        in_burst_ = false;
        if (channels_.count && channels_.sync_every_section) sync_channels(0);
        if (is_cancelled_) return;
        file_.flush();
        count_bytes(SECTION_BYTES);
        if (stage_ == Stage::waits_for_burst) merge_fallback(now_ns());
    }

    Pages find_page() {
        const auto passes = memory_.passes_ended;
        const Pages page = memory_.find_dirty_page();
        if (memory_.passes_ended != passes && channels_.count && !channels_.sync_every_section)
            sync_channels(8);
        return page;
    }

    void sync_channels(Bytes record_bytes) {
        now_ps_ = channels_.drain(now_ps_, link_);
        count_bytes(channels_.sync_bytes() + record_bytes);
    }

    void count_bytes(Bytes bytes) {
        sent_ += bytes;
        file_.counted += bytes;
    }

    // ram.c:ram_save_target_page. A chunk is cleared before its first page.
    void send_page(Pages page, bool clears) {
        if (clears && memory_.clear_is_due(page)) {
            now_ps_ = std::max(now_ps_, slots_held_until_ns_ * PS_PER_NS);
            let_guest_write(now_ns());
            memory_.clear_chunk_of(page);
            now_ps_ += clear_ps_;
            cleared_ns_ = now_ns();
            if (!burst_counts_clears_) uncounted_ps_ += clear_ps_;
        }
        memory_.take(page);
        const bool is_zero = memory_.is_zero[page];
        (is_zero ? zero_pages_ : normal_pages_)++;
        if (channels_.count) now_ps_ += channels_.queue_ps;
        if (channels_.count && (!is_zero || channels_.find_zero_pages)) {
            now_ps_ = channels_.put(is_zero, now_ps_, link_);
        } else if (is_zero) {
            now_ps_ += link_.zero_page_ps;
            file_.put_buffer(ZERO_PAGE_BYTES);
            sent_ += ZERO_PAGE_BYTES;
        } else {
            now_ps_ += link_.normal_page_ps;
            file_.put_buffer(HEADER_BYTES);
            file_.put_page(page_bytes_);
            sent_ += HEADER_BYTES + page_bytes_;
        }
    }

    // migration.c:migration_completion_precopy. The big lock is held to the end.
    void complete() {
        Ns stop_ns = std::max(now_ns(), big_lock_free_ns_);
        run_main_loop_to(stop_ns);
        while (stage_ != Stage::idle) {
            stop_ns = std::max(stop_ns, next_main_loop_ns());
            run_main_loop_to(stop_ns);
        }
        if (is_cancelled_) return cancel();
        now_ps_ = std::max(now_ps_, stop_ns * PS_PER_NS);
        sync("final");
        for (Pages page; (page = find_page()) >= 0;) {
            link_.change_up_to(now_ps_);
            send_page(page, clears_in_last_stage_);
        }
        if (channels_.count) now_ps_ = channels_.drain(now_ps_, link_);
        const Ns end_ns = now_ns() + non_ram_ns_;
        end("converged", end_ns, end_ns - stop_ns);
    }

    void cancel() {
        Ns end_ns = std::max(cancelled_ns_, now_ns());
        while (stage_ != Stage::idle) {  // the thread ends and holds no mutex
            if (stage_ == Stage::waits_for_burst) {
                merge_fallback(now_ns());
                continue;
            }
            end_ns = std::max(end_ns, next_main_loop_ns());
            is_cancelled_ = false;
            run_main_loop_to(next_main_loop_ns());
        }
        end("cancelled", end_ns);
    }

    void end(const char *verdict, Ns at, Ns downtime_ns = -1) {
        std::printf("end %s %lld %lld %lld %lld %lld %lld %lld\n", verdict, (long long)at,
                    (long long)downtime_ns, (long long)normal_pages_, (long long)zero_pages_,
                    (long long)(sent_ + channels_.sent), (long long)memory_.pending,
                    (long long)(memory_.clears));
    }

    // ---- dirty syncs: ram.c:migration_bitmap_sync

    // A sync of the migration thread.
    void sync(const std::string &kind) {
        const Ns start_ns = now_ns();
        begin_sync(start_ns);
        if (kind != "final") take_big_lock(start_ns, false);
        Ns merge_ns = start_ns;
        const Ns woken_ns = waits_for_vcpus_ && kind != "final" ? vcpus_answer_ns(start_ns) : start_ns;
        if (vcpus_answer_first_ && kind != "setup") merge_ns = woken_ns;
        const Pages newly_dirty = merge(merge_ns, kind);
        if (kind == "final") vm_has_stopped_ = true;
        Ns end_ns = merge_ns + log_sync_ns_ + merge_ns_;
        if (!vcpus_answer_first_) end_ns = std::max(end_ns, woken_ns);
        big_lock_free_ns_ = end_ns;
        now_ps_ = std::max(now_ps_, end_ns * PS_PER_NS);
        end_sync(kind, start_ns, end_ns, newly_dirty, memory_.pending);
        if (kind != "final") give_big_lock(end_ns, false);
    }

    void take_big_lock(Ns at, bool by_main_loop) {
        let_guest_write(at);
        guest_.throttle.take_lock(vm_ns(at), by_main_loop);
    }

    void give_big_lock(Ns at, bool by_main_loop) {
        let_guest_write(at);
        guest_.throttle.give_lock(vm_ns(at), by_main_loop);
    }

    void begin_sync(Ns start_ns) {
        if (!sync_count_++) period_start_ms_ = start_ns / NS_PER_MS;
    }

    // A vCPU that sleeps answers when it wakes.
    Ns vcpus_answer_ns(Ns at) {
        let_guest_write(at);
        return at + guest_.throttle.wakes_at(vm_ns(at)) - vm_ns(at);
    }

    Pages merge(Ns at, const std::string &kind) {
        let_guest_write(at);
        if (kind != "setup") return memory_.sync();
        memory_.start();
        return 0;
    }

    void end_sync(const std::string &kind, Ns start_ns, Ns end_ns, Pages newly_dirty, Pages pending) {
        const Ns end_ms = end_ns / NS_PER_MS;
        period_pages_ += newly_dirty;
        const Ns period_ms = end_ms - period_start_ms_;
        const bool closes = period_ms > 1000;
        if (closes) {
            const Bytes sent = counted() - period_counted_;
            close_period(kind, end_ns, period_ms, sent);
            period_start_ms_ = end_ms;
            period_pages_ = 0;
            period_counted_ = file_.counted;
        }
        std::printf("sync %lld %s %lld %lld %lld %lld %lld %d %d %lld\n", (long long)sync_count_,
                    kind.c_str(), (long long)start_ns, (long long)end_ns, (long long)newly_dirty,
                    (long long)(pending * page_bytes_), (long long)threshold_,
                    guest_.throttle.percent, high_periods_, closes ? (long long)period_ms : -1LL);
        for (Action &action : actions_)
            if (action.at_ns < 0 && action.at_sync <= sync_count_ && kind != "final")
                action.at_ns = end_ns;
    }

    // ram.c:migration_trigger_throttle
    void close_period(const std::string &kind, Ns end_ns, Ns period_ms, Bytes sent) {
        const Bytes dirty = period_pages_ * page_bytes_, high = sent * trigger_percent_ / 100;
        const Pages rate_before = dirty_pages_rate_;
        dirty_pages_rate_ = period_pages_ * 1000 / period_ms;
        if (timer_starts_with_period_ && timer_exists_) start_timer(end_ns);
        if (dirty <= high || (is_2_6_ && !rate_before)) return;
        if (++high_periods_ < (is_2_6_ ? 3 : 2)) return;
        high_periods_ = 0;
        if (!auto_converge_) return;
        throttle_percent_ = next_percent(double(high) / double(dirty));
        if (kind != "final" && throttle_percent_ != guest_.throttle.percent) {
            let_guest_write(end_ns);
            guest_.throttle.set(vm_ns(end_ns), int(throttle_percent_));
        }
    }

    // ram.c:mig_throttle_guest_down
    std::int64_t next_percent(double high_per_dirty) const {
        if (!throttle_percent_) return initial_percent_;
        std::int64_t step = increment_percent_;
        if (tailslow_) {
            const std::int64_t left = 100 - throttle_percent_;
            step = std::min(left - std::int64_t(double(left) * high_per_dirty), step);
        }
        return std::min(throttle_percent_ + step, max_percent_);
    }

    // ---- the main loop: the fallback timer's tick, the sync that it forces, and QMP commands

    enum class Stage { idle, reads_log, waits_for_burst, ends };

    void start_timer(Ns at) {
        if (timer_is_active_ || !auto_converge_) return;
        timer_is_active_ = true;
        if (timer_start_resets_count_) count_prev_ = 0;
        tick_at_ns_ = at - vm_ns(at) % NS_PER_MS + tick_interval_ns_;
    }

    Ns next_main_loop_ns() const {
        if (stage_ == Stage::waits_for_burst) return NEVER;
        if (stage_ != Stage::idle) return step_at_ns_;
        Ns next_ns = tick_ns();
        for (const Action &action : actions_)
            if (action.at_ns >= 0) next_ns = std::min(next_ns, std::max(action.at_ns, big_lock_free_ns_));
        return next_ns;
    }

    Ns tick_ns() const {
        const bool may_tick = tick_at_ns_ >= 0 && paused_at_ns_ < 0;
        return may_tick ? std::max(tick_at_ns_, big_lock_free_ns_) : NEVER;
    }

    void run_main_loop_to(Ns until_ns) {
        while (!is_cancelled_) {
            const Ns at = next_main_loop_ns();
            if (at > until_ns || at == NEVER) return;
            if (stage_ == Stage::reads_log) {
                if (waits_for_burst_ && in_burst_) stage_ = Stage::waits_for_burst;
                else merge_fallback(at);
            } else if (stage_ == Stage::ends) {
                big_lock_free_ns_ = at;
                end_sync("fallback", fallback_start_ns_, at, fallback_newly_dirty_, fallback_pending_);
                give_big_lock(at, true);
                end_tick(at);
            } else if (at == tick_ns()) {
                tick(at);
            } else {
                const auto due = std::find_if(actions_.begin(), actions_.end(), [&](const Action &a) {
                    return a.at_ns >= 0 && std::max(a.at_ns, big_lock_free_ns_) == at;
                });
                const Action action = *due;
                actions_.erase(due);
                act(action, at);
            }
        }
    }

    // cpu-throttle.c:cpu_throttle_dirty_sync_timer_tick. v2 polls for an old period instead, from the
    // end of the setup on.
    void tick(Ns at) {
        tick_at_ns_ = -1;
        const Ns period_ns = (at / NS_PER_MS - period_start_ms_) * NS_PER_MS;
        const bool is_old = !timer_polls_ || period_ns > fallback_interval_ns_;
        if (sync_count_ < 2 || sync_count_ != count_prev_ || !is_old) return end_tick(at);
        fallback_start_ns_ = at;
        begin_sync(at);
        take_big_lock(at, true);
        answer_ns_ = waits_for_vcpus_ ? vcpus_answer_ns(at) : at;
        stage_ = Stage::reads_log;
        // kvm-all.c:kvm_log_sync and kvm_physical_log_clear need the lock of KVM's slots.
        const Ns read_ns = std::max(vcpus_answer_first_ ? answer_ns_ : at, cleared_ns_);
        slots_held_until_ns_ = read_ns + slots_lock_ns_;
        step_at_ns_ = read_ns + log_sync_ns_;
    }

    void merge_fallback(Ns at) {
        fallback_newly_dirty_ = merge(at, "fallback");
        fallback_pending_ = memory_.pending;
        merged_ns_ = at;
        mutex_held_until_ns_ = at + merge_ns_;
        stage_ = Stage::ends;
        step_at_ns_ = vcpus_answer_first_ ? mutex_held_until_ns_ : std::max(mutex_held_until_ns_, answer_ns_);
    }

    void end_tick(Ns at) {
        stage_ = Stage::idle;
        count_prev_ = sync_count_;
        tick_at_ns_ = at - vm_ns(at) % NS_PER_MS + tick_interval_ns_;
    }

    // The migration thread waits for the big lock. It holds no mutex meanwhile.
    void wait_for_main_loop() {
        while (stage_ != Stage::idle && !is_cancelled_) {
            if (stage_ == Stage::waits_for_burst) merge_fallback(now_ns());
            now_ps_ = std::max(now_ps_, next_main_loop_ns() * PS_PER_NS);
            run_main_loop_to(next_main_loop_ns());
        }
    }

    void act(const Action &action, Ns at) {
        const auto value = std::int64_t(action.value);
        if (action.what == "pause" && paused_at_ns_ < 0) {
            let_guest_write(at);
            paused_at_ns_ = at;
        } else if (action.what == "resume" && paused_at_ns_ >= 0) {
            paused_ns_ += at - paused_at_ns_;
            if (tick_at_ns_ >= 0) tick_at_ns_ += at - paused_at_ns_;
            paused_at_ns_ = -1;
        } else if (action.what == "cancel") {
            is_cancelled_ = true;
            cancelled_ns_ = at;
        } else if (action.what == "max_bandwidth") {
            set_max_bandwidth(value);
        } else if (action.what == "downtime_limit") {
            downtime_limit_ms_ = value;
        } else if (action.what == "cpu_throttle_increment") {
            increment_percent_ = value;
        } else if (action.what == "max_cpu_throttle") {
            max_percent_ = value;
        }
    }

    const Keys &keys_;
    Memory memory_;
    Guest guest_;
    Bytes page_bytes_;
    Link link_;
    File file_;
    Channels channels_;

    // What the keys say.
    const bool auto_converge_ = keys_.whole("auto_converge"), tailslow_ = keys_.whole("tailslow");
    const bool is_2_6_ = keys_.whole("is_2_6"), ready_if_equal_ = keys_.whole("ready_if_equal");
    const bool clears_in_last_stage_ = keys_.whole("clears_in_last_stage");
    const bool waits_for_burst_ = keys_.whole("waits_for_burst");
    const bool waits_for_vcpus_ = keys_.whole("waits_for_vcpus");
    const bool timer_exists_ = keys_.whole("timer_exists"), timer_polls_ = keys_.whole("timer_polls");
    const bool timer_starts_with_period_ = keys_.whole("timer_starts_with_period");
    const bool timer_start_resets_count_ = keys_.whole("timer_start_resets_count");
    const Ns fallback_interval_ns_ = keys_.whole("fallback_interval_ns");
    const Ns tick_interval_ns_ = timer_polls_ ? NS_PER_S : fallback_interval_ns_;
    const Ns log_sync_ns_ = keys_.whole("log_sync_ns"), merge_ns_ = keys_.whole("merge_ns");
    const Ns slots_lock_ns_ = keys_.whole("slots_lock_ns");
    const Ps clear_ps_ = keys_.whole("clear_ps");
    const Ns wakeup_latency_ns_ = keys_.whole("wakeup_latency_ns");
    const Ns non_ram_ns_ = keys_.whole("non_ram_ns"), limit_ns_ = keys_.whole("limit_ns");
    const Bytes switchover_bandwidth_ = keys_.whole("switchover_bandwidth");
    const std::int64_t trigger_percent_ = keys_.whole("trigger_percent");
    const std::int64_t initial_percent_ = keys_.whole("initial_percent");
    std::int64_t increment_percent_ = keys_.whole("increment_percent");
    std::int64_t max_percent_ = keys_.whole("max_percent");
    std::int64_t downtime_limit_ms_ = keys_.whole("downtime_limit_ms");
    Bytes max_bandwidth_ = keys_.whole("max_bandwidth");

    // Ways of gpusim, see GPUSIM_WAY in model.py: 1 is QEMU's way.
    const bool burst_counts_clears_ = keys_.whole("burst_counts_clears");
    const bool vcpus_answer_first_ = keys_.whole("vcpus_answer_first");
    const bool whole_ms_ = keys_.whole("whole_ms");

    Ps now_ps_ = 0;  // of the migration thread
    bool vm_has_stopped_ = false;
    Ns paused_ns_ = 0, paused_at_ns_ = -1;

    Bytes window_budget_ = 0, window_counted_ = 0, threshold_ = 0, sent_ = 0;
    Ps window_start_ps_ = 0, uncounted_ps_ = 0;
    bool in_burst_ = false;
    Pages normal_pages_ = 0, zero_pages_ = 0;

    std::int64_t sync_count_ = 0, throttle_percent_ = 0;
    Ns period_start_ms_ = 0;
    Pages period_pages_ = 0, dirty_pages_rate_ = 0;
    Bytes period_counted_ = 0;
    int high_periods_ = 0;

    Stage stage_ = Stage::idle;
    Ns step_at_ns_ = 0, big_lock_free_ns_ = 0, mutex_held_until_ns_ = 0, merged_ns_ = -1;
    Ns slots_held_until_ns_ = 0, cleared_ns_ = 0;
    Ns fallback_start_ns_ = 0, answer_ns_ = 0;
    Pages fallback_newly_dirty_ = 0, fallback_pending_ = 0;
    bool timer_is_active_ = false;
    Ns tick_at_ns_ = -1;
    std::int64_t count_prev_ = keys_.whole("count_prev");
    bool is_cancelled_ = false;
    Ns cancelled_ns_ = 0;
    std::vector<Action> actions_;
};

int main(int, char **argv) {
    const Keys keys(argv[1]);
    Migration(keys).run();
}
