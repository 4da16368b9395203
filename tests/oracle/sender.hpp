// What the migration thread pays for a page, and what QEMU's rate limit counts.
//
// Source: migration/qemu-file.c:add_to_iovec, qemu_put_buffer, qemu_fflush;
// migration/multifd-nocomp.c:multifd_queue_page, multifd_ram_flush_and_sync.
#pragma once

#include <cmath>
#include <limits>

#include "memory.hpp"

constexpr Bytes HEADER_BYTES = 8, ZERO_PAGE_BYTES = 9, SECTION_BYTES = 18;
constexpr double PS_PER_S = 1e12;

// The link and one sending thread, which work side by side: the slower one counts.
class Link {
  public:
    Ps normal_page_ps, zero_page_ps;
    double bandwidth;  // bytes per second

    explicit Link(const Keys &keys, Bytes page_bytes)
        : page_bytes_(page_bytes), page_cost_ns_(keys.real("page_cost_ns")),
          zero_page_ns_(keys.real("zero_page_ns")) {
        const auto changes = keys.list("link_changes");
        for (std::size_t i = 0; i + 1 < changes.size(); i += 2)
            changes_.push_back({Ns(changes[i]), changes[i + 1]});
        set_bandwidth(keys.real("bandwidth"));
    }

    void change_up_to(Ps now_ps) {
        while (next_ < changes_.size() && changes_[next_].first * PS_PER_NS <= now_ps)
            set_bandwidth(changes_[next_++].second);
    }

  private:
    void set_bandwidth(double bytes_per_s) {  // 0: unlimited
        bandwidth = bytes_per_s > 0 ? bytes_per_s : std::numeric_limits<double>::infinity();
        const auto page_ps = [&](Bytes bytes, double thread_ns) {
            return Ps(std::llround(std::max(bytes * PS_PER_S / bandwidth, thread_ns * PS_PER_NS)));
        };
        normal_page_ps = page_ps(page_bytes_ + HEADER_BYTES, page_cost_ns_);
        zero_page_ps = page_ps(ZERO_PAGE_BYTES, zero_page_ns_);
    }

    Bytes page_bytes_;
    double page_cost_ns_, zero_page_ns_;
    std::vector<std::pair<Ns, double>> changes_;
    std::size_t next_ = 0;
};

// QEMUFile. Bytes count when they are flushed: after 64 buffers, or 32 KiB of copied bytes.
class File {
  public:
    Bytes counted = 0;  // migration_transferred_bytes

    // Before 8.0 QEMU counts a page when it queues it.
    explicit File(bool counts_flushed) : counts_flushed_(counts_flushed) {}

    void put_buffer(Bytes bytes) {  // copied behind the last copied bytes, if nothing lies between
        if (!ends_with_copy_) buffers_++;
        ends_with_copy_ = true;
        copied_ += bytes;
        put(bytes);
    }

    void put_page(Bytes bytes) {
        buffers_++;
        ends_with_copy_ = false;
        put(bytes);
    }

    void flush() {
        counted += waiting_;
        waiting_ = copied_ = buffers_ = 0;
        ends_with_copy_ = false;
    }

  private:
    void put(Bytes bytes) {
        waiting_ += bytes;
        if (!counts_flushed_ || buffers_ >= 64 || copied_ >= 32768) flush();
    }

    bool counts_flushed_, ends_with_copy_ = false;
    Bytes waiting_ = 0, copied_ = 0, buffers_ = 0;
};

// multifd: the migration thread fills packets, and each goes to the first channel that is free.
class Channels {
  public:
    const std::size_t count;
    const bool find_zero_pages;      // if not, the migration thread does
    const bool sync_every_section;   // if not, they sync when the cursor wraps
    const Ps queue_ps;
    Bytes sent = 0;

    Channels(const Keys &keys, Bytes page_bytes)
        : count(keys.whole("channels")), find_zero_pages(keys.whole("channels_find_zero_pages")),
          sync_every_section(keys.whole("channels_sync_every_section")),
          queue_ps(Ps(keys.real("queue_cost_ns") * PS_PER_NS)), page_bytes_(page_bytes),
          page_cost_ns_(keys.real("page_cost_ns")), zero_page_ns_(keys.real("zero_page_ns")),
          packet_pages_(512 * 1024 / page_bytes), header_bytes_(320 + 8 * packet_pages_),
          free_at_(count, 0) {}

    Bytes sync_bytes() const { return Bytes(count) * header_bytes_; }

    // Put a page into the packet. Return when the migration thread goes on.
    Ps put(bool is_zero, Ps now, const Link &link) {
        (is_zero ? zero_ : normal_)++;
        return normal_ + zero_ == packet_pages_ ? send_packet(now, link) : now;
    }

    // Send what is left. Return when the last channel is done.
    Ps drain(Ps now, const Link &link) {
        now = normal_ + zero_ ? send_packet(now, link) : now;
        return std::max(now, *std::max_element(free_at_.begin(), free_at_.end()));
    }

    // Bytes of packets that were written by a time. They have not been returned before.
    Bytes written_by(Ps now) {
        Bytes bytes = 0;
        std::vector<std::pair<Ps, Bytes>> later;
        for (const auto &packet : on_their_way_) {
            if (packet.first <= now) bytes += packet.second;
            else later.push_back(packet);
        }
        on_their_way_ = later;
        return bytes;
    }

  private:
    Ps send_packet(Ps now, const Link &link) {
        Ps &free_at = *std::min_element(free_at_.begin(), free_at_.end());
        now = std::max(now, free_at);
        const double zero_ns = find_zero_pages ? zero_ * zero_page_ns_ : 0;
        const Ps thread_ps = Ps(normal_ * page_cost_ns_ * PS_PER_NS + zero_ns * PS_PER_NS);
        const Bytes bytes = header_bytes_ + normal_ * page_bytes_;
        link_free_at_ = std::max(link_free_at_, now) + Ps(bytes * PS_PER_S / link.bandwidth);
        free_at = std::max(now + thread_ps, link_free_at_);
        on_their_way_.push_back({free_at, bytes});
        sent += bytes;
        normal_ = zero_ = 0;
        return now;
    }

    Bytes page_bytes_;
    double page_cost_ns_, zero_page_ns_;
    Pages packet_pages_;
    Bytes header_bytes_;
    std::vector<Ps> free_at_;
    std::vector<std::pair<Ps, Bytes>> on_their_way_;
    Ps link_free_at_ = 0;
    Pages normal_ = 0, zero_ = 0;
};
