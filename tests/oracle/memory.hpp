// QEMU's and KVM's bitmaps with one byte a page, the chunks of remote clears, and the cursor.
//
// Source: migration/ram.c:ramblock_sync_dirty_bitmap, find_dirty_block,
// migration_clear_memory_region_dirty_bitmap; accel/kvm/kvm-all.c:kvm_log_clear_one_slot.
#pragma once

#include <algorithm>
#include <vector>

#include "keys.hpp"

constexpr Pages CHUNK_PAGES = 1 << 18;  // 2^clear_bmap_shift
constexpr Pages GROUP_PAGES = 1024;     // the cursor skips a group without dirty pages

class Memory {
  public:
    // Manual protect: a chunk is protected again by its remote clear, not by the sync.
    const bool lazy;
    Pages pages = 0;
    Pages pending = 0;           // migration_dirty_pages
    std::vector<char> dirty;     // RAMBlock.bmap
    std::vector<char> written;   // KVM's log
    std::vector<char> read;      // KVMSlot.dirty_bmap: what the last sync read from the log
    std::vector<char> is_zero;
    std::int64_t clears = 0;
    std::int64_t passes_ended = 0;

    explicit Memory(const Keys &keys) : lazy(keys.whole("lazy")) {
        for (double block : keys.list("blocks")) blocks_.push_back({0, Pages(block)});
        std::sort(blocks_.begin(), blocks_.end(),
                  [](const Block &a, const Block &b) { return a.pages > b.pages; });
        for (Block &block : blocks_) {
            block.first = pages;
            for (Pages page = 0; page < block.pages; page += CHUNK_PAGES)
                chunks_.push_back({pages + page, std::min(CHUNK_PAGES, block.pages - page), false});
            pages += block.pages;
        }
        dirty.assign(pages, 1);
        written.assign(pages, lazy && keys.whole("initially_set"));
        read.assign(pages, 0);
        is_zero.assign(pages, 0);
        const auto zero = keys.list("zero");
        for (std::size_t i = 0; i + 1 < zero.size(); i += 2)
            std::fill(is_zero.begin() + Pages(zero[i]), is_zero.begin() + Pages(zero[i + 1]), 1);
        pending = pages;
        count_groups();
    }

    void write(Pages page) {
        written[page] = 1;
        is_zero[page] = 0;
    }

    // The first sync finds every page dirty already.
    void start() { read_log(); }

    // Merge the log into the dirty bitmap. Return the pages that were clean before.
    Pages sync() {
        Pages newly_dirty = 0;
        for (Pages page = 0; page < pages; page++) {
            if (!written[page]) continue;
            newly_dirty += !dirty[page];
            dirty[page] = 1;
        }
        pending += newly_dirty;
        read_log();
        count_groups();
        return newly_dirty;
    }

    // Move to the next dirty page and return it. Return -1 after a full circle without one.
    // The cursor stays behind the page that it found, and no sync moves it.
    Pages find_dirty_page() {
        std::size_t block = block_;
        Pages page = page_;
        for (bool full_circle = false;;) {
            page = next_dirty(blocks_[block], page);
            if (full_circle && block == block_ && page >= page_) {
                page_ = page;
                return -1;
            }
            if (page < blocks_[block].pages) {
                block_ = block;
                page_ = page + 1;
                return blocks_[block].first + page;
            }
            page = 0;
            if (++block == blocks_.size()) {
                block = 0;
                full_circle = true;
                passes_ended++;
            }
        }
    }

    bool clear_is_due(Pages page) const { return lazy && chunk_of(page).clear_is_due; }

    // KVM_CLEAR_DIRTY_LOG: protect what the last sync read. Writes after that sync stay in the log.
    void clear_chunk_of(Pages page) {
        Chunk &chunk = const_cast<Chunk &>(chunk_of(page));
        chunk.clear_is_due = false;
        clears++;
        for (Pages p = chunk.first; p < chunk.first + chunk.pages; p++) {
            written[p] &= !read[p];
            read[p] = 0;
        }
    }

    void take(Pages page) {
        dirty[page] = 0;
        dirty_in_group_[page / GROUP_PAGES]--;
        pending--;
    }

  private:
    struct Block {
        Pages first, pages;
    };
    struct Chunk {
        Pages first, pages;
        bool clear_is_due;
    };

    void read_log() {
        if (lazy) {
            read = written;
            for (Chunk &chunk : chunks_) chunk.clear_is_due = true;
        } else {
            std::fill(written.begin(), written.end(), 0);
        }
    }

    const Chunk &chunk_of(Pages page) const {
        const auto behind =
            std::upper_bound(chunks_.begin(), chunks_.end(), page,
                             [](Pages p, const Chunk &chunk) { return p < chunk.first; });
        return *(behind - 1);
    }

    Pages next_dirty(const Block &block, Pages page) const {
        while (page < block.pages) {
            const Pages global = block.first + page;
            if (!dirty_in_group_[global / GROUP_PAGES])
                page = (global / GROUP_PAGES + 1) * GROUP_PAGES - block.first;
            else if (dirty[global])
                return page;
            else
                page++;
        }
        return block.pages;
    }

    void count_groups() {
        dirty_in_group_.assign(pages / GROUP_PAGES + 1, 0);
        for (Pages page = 0; page < pages; page++)
            dirty_in_group_[page / GROUP_PAGES] += dirty[page];
    }

    std::vector<Block> blocks_;  // largest first
    std::vector<Chunk> chunks_;  // no chunk holds pages of two blocks
    std::vector<int> dirty_in_group_;
    std::size_t block_ = 0;  // the cursor: last_seen_block and last_page
    Pages page_ = 0;
};
