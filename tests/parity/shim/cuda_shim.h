// Runs CUDA kernels on the CPU, to test them without a GPU. The threads of a block are fibers. They
// run in an order shuffled by a seed, each until it waits at a barrier. A kernel that lacks a
// barrier then reads words that another thread has not written yet. Blocks run one after another.
// The shim does not find races between two barriers, but racecheck of compute-sanitizer does.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct Index {
    int x;
};
static Index threadIdx, blockIdx;

namespace shim {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    std::vector<char> stack = std::vector<char>(64 * 1024);
};

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static std::function<void()> kernel;
static unsigned long long lanes[1024];

static void body() {
    kernel();
    fibers[threadIdx.x].state = DONE;
    swapcontext(&fibers[threadIdx.x].context, &scheduler);
}

static void wait_at(State barrier) {
    Fiber &me = fibers[threadIdx.x];
    me.state = barrier;
    swapcontext(&me.context, &scheduler);
}

// Release the fibers first <= i < last if all of them that are not done wait at the barrier.
static bool release(State barrier, int first, int last) {
    int waiting = 0;
    for (int i = first; i < last; ++i) {
        if (fibers[i].state == READY) return false;
        if (fibers[i].state != DONE && fibers[i].state != barrier) return false;
        waiting += fibers[i].state == barrier;
    }
    for (int i = first; i < last; ++i)
        if (fibers[i].state == barrier) fibers[i].state = READY;
    return waiting > 0;
}

static void run(int blocks, int threads, unsigned seed, std::function<void()> body_of_thread) {
    std::mt19937 random(seed);
    std::vector<int> order(threads);
    kernel = body_of_thread;
    if ((int)fibers.size() < threads) fibers = std::vector<Fiber>(threads);
    for (int b = 0; b < blocks; ++b) {
        for (int i = 0; i < threads; ++i) {
            Fiber &fiber = fibers[i];
            order[i] = i;
            fiber.state = READY;
            getcontext(&fiber.context);
            fiber.context.uc_stack = {fiber.stack.data(), 0, fiber.stack.size()};
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, body, 0);
        }
        for (bool going = true; going;) {
            std::shuffle(order.begin(), order.end(), random);
            for (int i : order) {
                if (fibers[i].state != READY) continue;
                threadIdx.x = i;
                blockIdx.x = b;
                swapcontext(&scheduler, &fibers[i].context);
            }
            going = false;
            for (int warp = 0; warp < threads; warp += 32)
                going |= release(AT_WARP_BARRIER, warp, std::min(warp + 32, threads));
            going |= release(AT_BLOCK_BARRIER, 0, threads);
        }
    }
}

} // namespace shim

static void __syncthreads() { shim::wait_at(shim::AT_BLOCK_BARRIER); }

static unsigned long long __shfl_down_sync(unsigned, unsigned long long value, int by) {
    const int me = threadIdx.x;
    shim::lanes[me] = value;
    shim::wait_at(shim::AT_WARP_BARRIER);
    const unsigned long long other = me % 32 + by < 32 ? shim::lanes[me + by] : value;
    shim::wait_at(shim::AT_WARP_BARRIER);
    return other;
}

static int __clzll(long long word) { return word ? __builtin_clzll(word) : 64; }
static int __popcll(unsigned long long word) { return __builtin_popcountll(word); }

template <class T>
static T atomicOr(T *at, T bits) {
    const T old = *at;
    *at |= bits;
    return old;
}

template <class T>
static T atomicAnd(T *at, T bits) {
    const T old = *at;
    *at &= bits;
    return old;
}

template <class T>
static T atomicMax(T *at, T other) {
    const T old = *at;
    if (other > old) *at = other;
    return old;
}

template <class T>
static T atomicAdd(T *at, T more) {
    const T old = *at;
    *at += more;
    return old;
}
