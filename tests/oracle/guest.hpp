// The guest: vCPUs under the throttle, tick by tick, and writers that write one page after the other.
//
// Source: migration/cpu-throttle.c:cpu_throttle_set, cpu_throttle_timer_tick, cpu_throttle_thread.
#pragma once

#include <cmath>

#include "memory.hpp"

// The vCPUs, the timer that puts them to sleep, and the big lock that both need. All vCPUs sleep and
// run together. Times are the VM's, and must not fall from call to call.
class Throttle {
  public:
    int percent = 0;
    bool is_ignored = false;  // the vCPUs' flag is still set from an earlier migration

    void set(Ns vm_ns, int new_percent) {
        if (!is_held_) let_pass(vm_ns, true);
        const bool is_first = percent == 0;
        percent_before_ = percent;
        percent = new_percent;
        set_ns_ = vm_ns;
        if (is_first && !is_ignored) {
            let_pass(vm_ns, false);
            tick(vm_ns, percent);
        }
    }

    // A sync takes the lock. Of two timers that are due now, the sync's was armed first.
    void take_lock(Ns vm_ns, bool by_main_loop) {
        let_pass(vm_ns, !by_main_loop);
        is_held_ = true;
        held_ns_ = vm_ns;
        is_kicked_ = is_scheduled_ && slept_ns_ == vm_ns;
    }

    // The main loop takes the lock again before a vCPU that waits for it, and runs its tick. Behind
    // another thread the vCPU comes first.
    void give_lock(Ns vm_ns, bool by_main_loop) {
        let_pass(vm_ns, false);
        is_held_ = false;
        if (vm_ns == held_ns_) return;
        if (is_kicked_) wakes_ns_ += vm_ns - held_ns_;
        const bool waits = is_scheduled_ && wakes_ns_ <= vm_ns;
        if (waits && !by_main_loop) is_scheduled_ = false;
        if (next_tick_ns_ <= vm_ns) tick(vm_ns, percent);
        if (waits && by_main_loop) is_scheduled_ = false;
    }

    Ns run_time(Ns vm_ns) {
        let_pass(vm_ns, false);
        return run_ns_;
    }

    // When the vCPUs that sleep now wake. A sleep that begins or ends now does not count.
    Ns wakes_at(Ns vm_ns) {
        let_pass(vm_ns, false);
        const bool sleeps = is_scheduled_ && slept_ns_ < vm_ns && vm_ns < wakes_ns_;
        return sleeps ? wakes_ns_ : vm_ns;
    }

  private:
    // Let time pass, and do what is due before it ends. What is due at its end is done if `at_end`.
    void let_pass(Ns vm_ns, bool at_end) {
        while (!is_held_) {
            const Ns at = std::min(is_scheduled_ ? wakes_ns_ : NEVER, next_tick_ns_);
            if (at > vm_ns || (at == vm_ns && !at_end)) break;
            run_to(at);
            if (is_scheduled_ && wakes_ns_ == at) is_scheduled_ = false;
            else tick(at, at == set_ns_ ? percent_before_ : percent);
        }
        run_to(vm_ns);
    }

    void run_to(Ns vm_ns) {
        if (!is_scheduled_) run_ns_ += vm_ns - now_ns_;
        now_ns_ = vm_ns;
    }

    void tick(Ns vm_ns, int of_percent) {
        const double share = of_percent / 100.0;
        if (!is_scheduled_) {
            is_scheduled_ = true;
            slept_ns_ = vm_ns;
            wakes_ns_ = vm_ns + Ns(share / (1 - share) * 10'000'000 + 1);
        }
        next_tick_ns_ = vm_ns + Ns(10'000'000 / (1 - share));
    }

    bool is_scheduled_ = false;  // throttle_thread_scheduled: the vCPUs sleep
    bool is_held_ = false, is_kicked_ = false;
    int percent_before_ = 0;
    Ns now_ns_ = 0, run_ns_ = 0, slept_ns_ = -1, wakes_ns_ = 0, next_tick_ns_ = NEVER;
    Ns held_ns_ = 0, set_ns_ = -1;
};

// Threads that each write their share of a range of pages in order, again and again.
class Writer {
  public:
    bool is_throttled;

    explicit Writer(const std::string &line) {
        std::istringstream words(line);
        std::size_t windows, records;
        words >> first_ >> pages_ >> threads_ >> first_write_ >> rate_ >> is_throttled;
        words >> windows;
        for (Ns from, until; windows > 0 && words >> from >> until; windows--)
            windows_.push_back({from, until});
        words >> records;
        for (double time_s, count; records > 0 && words >> time_s >> count; records--)
            record_.push_back({time_s, count});
        written_.assign(threads_, first_write_);
    }

    // Times at which the pace may change.
    std::vector<Ns> edges_ns() const {
        std::vector<Ns> edges;
        for (const auto &[from, until] : windows_) edges.insert(edges.end(), {from, until});
        if (!record_.empty()) edges.push_back(record_end_ns());
        return edges;
    }

    // Let time pass that contains no edge.
    void pass(Ns from_ns, Ns time_ns) {
        bool is_active = windows_.empty();
        for (const auto &[from, until] : windows_) is_active |= from <= from_ns && from_ns < until;
        if (!record_.empty()) is_active = from_ns >= record_end_ns();
        if (is_active) active_ns_ += time_ns;
    }

    void write(Ns vm_ns, Memory &memory) {
        const auto until = first_write_ + std::int64_t(std::floor(writes(vm_ns) / threads_));
        for (std::int64_t thread = 0; thread < threads_; thread++) {
            const Pages low = thread * pages_ / threads_, high = (thread + 1) * pages_ / threads_;
            const auto from = std::max(written_[thread], until - (high - low));
            for (auto write = from; write < until; write++)
                memory.write(first_ + low + write % (high - low));
            written_[thread] = std::max(written_[thread], until);
        }
    }

  private:
    Ns record_end_ns() const { return Ns(std::llround(record_.back().first * 1e9)); }

    double writes(Ns vm_ns) const {
        double recorded = 0;
        if (!record_.empty()) {
            const double time_s = vm_ns / 1e9;
            auto next = std::upper_bound(
                record_.begin(), record_.end(), time_s,
                [](double t, const std::pair<double, double> &sample) { return t < sample.first; });
            if (next == record_.begin()) {
                recorded = record_.front().second;
            } else if (next == record_.end()) {
                recorded = record_.back().second;
            } else {
                const auto &[t0, c0] = *(next - 1);
                recorded = (next->second - c0) / (next->first - t0) * (time_s - t0) + c0;
            }
        }
        return recorded + rate_ * (active_ns_ / 1e9);
    }

    Pages first_, pages_;
    std::int64_t threads_, first_write_;
    double rate_;
    std::vector<std::pair<Ns, Ns>> windows_;
    std::vector<std::pair<double, double>> record_;  // seconds, writes so far
    std::vector<std::int64_t> written_;              // by each thread
    Ns active_ns_ = 0;
};

class Guest {
  public:
    Throttle throttle;

    explicit Guest(const Keys &keys) {
        for (const std::string &line : keys.all("writer")) {
            writers_.emplace_back(line);
            for (Ns edge : writers_.back().edges_ns()) edges_ns_.push_back(edge);
        }
        std::sort(edges_ns_.begin(), edges_ns_.end());
    }

    // Let the guest write until a time of the VM's clock.
    void run_to(Ns vm_ns, Memory &memory) {
        if (vm_ns <= now_ns_) return;
        for (Ns edge : edges_ns_)
            if (now_ns_ < edge && edge < vm_ns) pass_to(edge);
        pass_to(vm_ns);
        for (Writer &writer : writers_) writer.write(vm_ns, memory);
    }

  private:
    void pass_to(Ns vm_ns) {
        const Ns ran_before = throttle.run_time(now_ns_), ran = throttle.run_time(vm_ns);
        for (Writer &writer : writers_)
            writer.pass(now_ns_, writer.is_throttled ? ran - ran_before : vm_ns - now_ns_);
        now_ns_ = vm_ns;
    }

    std::vector<Writer> writers_;
    std::vector<Ns> edges_ns_;
    Ns now_ns_ = 0;
};
