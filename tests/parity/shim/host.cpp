// paint.cu for the CPU. KERNELS is its file, or a copy that a test has damaged.
#include "cuda_shim.h"

#include KERNELS

extern "C" void run_paint(int blocks, int threads, unsigned seed, int op, const i64 *chunks,
                          const i64 *low, const i64 *high, const i64 *cell_first,
                          const i64 *cell_last, const u64 *cell_packed, const u64 *cell_key,
                          const i64 *mask_low, const i64 *mask_high, const i64 *mask_first,
                          const i64 *mask_last, const u64 *mask_packed, const u64 *mask_key,
                          u64 *dirty, u64 *log, u64 *zero, i64 *fresh, i64 *unzeroed) {
    shim::run(blocks, threads, seed, [&] {
        paint(op, chunks, low, high, cell_first, cell_last, cell_packed, cell_key, mask_low,
              mask_high, mask_first, mask_last, mask_packed, mask_key, dirty, log, zero, fresh,
              unzeroed);
    });
}

extern "C" void run_take(int blocks, int threads, unsigned seed, u64 *dirty, const u64 *zero,
                         int page, const u64 *budgets, int n, i64 *taken) {
    shim::run(blocks, threads, seed, [&] { take(dirty, zero, page, budgets, n, taken); });
}
