// The guest: vCPUs under the throttle, tick by tick, and writers that write one page after the other.
//
// Source: migration/cpu-throttle.c:cpu_throttle_set, cpu_throttle_timer_tick, cpu_throttle_thread.
#pragma once

#include <cmath>

#include "memory.hpp"

// Run time of the vCPUs on the VM's clock. All vCPUs sleep and run together.
class Throttle {
  public:
    int percent = 0;
    bool is_ignored = false;  // the vCPUs' flag is still set from an earlier migration

    void set(Ns vm_ns, int new_percent) {
        run_time(vm_ns);
        const bool is_first = percent == 0;
        percent = new_percent;
        if (is_first && !is_ignored) {
            ticks_ = true;
            tick_ns_ = vm_ns;
            plan_tick();
        }
    }

    // Times must not fall from call to call.
    Ns run_time(Ns vm_ns) {
        while (ticks_ && next_tick_ns_ <= vm_ns) {
            run_ns_ += ran(next_tick_ns_);
            last_ns_ = tick_ns_ = next_tick_ns_;
            plan_tick();
        }
        run_ns_ += ran(vm_ns);
        last_ns_ = vm_ns;
        return run_ns_;
    }

    // When the vCPUs that sleep now wake. A sleep that begins or ends now does not count.
    Ns wakes_at(Ns vm_ns) {
        run_time(vm_ns);
        const Ns since_tick = vm_ns - tick_ns_;
        const bool sleeps = ticks_ && since_tick > 0 && since_tick < sleep_ns_;
        return sleeps ? tick_ns_ + sleep_ns_ : vm_ns;
    }

  private:
    void plan_tick() {  // at a tick, with the percent of that time
        const double share = percent / 100.0;
        sleep_ns_ = Ns(share / (1 - share) * 10'000'000 + 1);
        next_tick_ns_ = tick_ns_ + Ns(10'000'000 / (1 - share));
    }

    Ns ran(Ns until_ns) const {
        const Ns from_ns = ticks_ ? std::max(last_ns_, tick_ns_ + sleep_ns_) : last_ns_;
        return std::max<Ns>(0, until_ns - from_ns);
    }

    bool ticks_ = false;
    Ns last_ns_ = 0, run_ns_ = 0, tick_ns_ = 0, sleep_ns_ = 0, next_tick_ns_ = 0;
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

    void write(Ns vm_ns, std::vector<char> &log) {
        const auto until = first_write_ + std::int64_t(std::floor(writes(vm_ns) / threads_));
        for (std::int64_t thread = 0; thread < threads_; thread++) {
            const Pages low = thread * pages_ / threads_, high = (thread + 1) * pages_ / threads_;
            const auto from = std::max(written_[thread], until - (high - low));
            for (auto write = from; write < until; write++)
                log[first_ + low + write % (high - low)] = 1;
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
    void run_to(Ns vm_ns, std::vector<char> &log) {
        if (vm_ns <= now_ns_) return;
        for (Ns edge : edges_ns_)
            if (now_ns_ < edge && edge < vm_ns) pass_to(edge);
        pass_to(vm_ns);
        for (Writer &writer : writers_) writer.write(vm_ns, log);
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
