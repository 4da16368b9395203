/*
 * How long does a vCPU wait for QEMU's big lock at each tick of the throttle, and how long does it run?
 *
 *   gcc -O2 -o big_lock_turns studies/big_lock_turns.c -pthread
 *   chrt -f 50 ./big_lock_turns VCPUS PERCENT SECONDS [EXTRA_US]
 *
 * The threads lock, wait and wake as QEMU's do, without a guest: a vCPU that runs waits for a signal, so
 * more vCPUs than cores may run. EXTRA_US lengthens each turn, as a slower wake-up would. Prints the
 * mean time from a tick to a vCPU's sleep, that of the last vCPU, the time to kick a vCPU, the time of
 * a vCPU's turn with the lock, the share of ticks that skip a vCPU because its flag is still set, and
 * the share of time in which vCPUs run, which is 1 - PERCENT / 100 without any wait.
 *
 * Source: migration/cpu-throttle.c:cpu_throttle_timer_tick, cpu_throttle_thread; accel/kvm/kvm-all.c:
 * kvm_cpu_exec; cpu-common.c:queue_work_on_cpu, process_queued_cpu_work; system/cpus.c:
 * qemu_cpu_kick, qemu_cond_timedwait_bql [11.1].
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_NS = 10000000, MS = 1000000, S = 1000000000 };

struct vcpu {
    pthread_t thread;
    pthread_mutex_t work_mutex;
    pthread_cond_t halt_cond;
    _Atomic int scheduled, work;
    long run_ns, wait_ns, waits;
};

static pthread_mutex_t bql = PTHREAD_MUTEX_INITIALIZER;
static struct vcpu *vcpus;
static int count;
static long extra_ns;
static double share;
static _Atomic long tick_ns, last_ns, from_ns;
static _Atomic int ends;

static long now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * (long)S + time.tv_nsec;
}

static void ignore(int signal)
{
}

static void throttle(struct vcpu *cpu)
{
    for (long from = now_ns(); now_ns() < from + extra_ns;)
        ;
    long sleep_ns = share / (1 - share) * SLICE_NS + 1, end_ns = now_ns() + sleep_ns;
    long waited_ns = now_ns() - tick_ns;
    if (tick_ns > from_ns) {
        cpu->wait_ns += waited_ns;
        cpu->waits++;
        if (waited_ns > last_ns)
            last_ns = waited_ns;
    }
    while (sleep_ns > 0 && !ends) {
        if (sleep_ns > MS) {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            long ns = until.tv_nsec + sleep_ns / MS * MS;
            until.tv_sec += ns / S;
            until.tv_nsec = ns % S;
            pthread_cond_timedwait(&cpu->halt_cond, &bql, &until);
        } else {
            pthread_mutex_unlock(&bql);
            usleep(sleep_ns / 1000);
            pthread_mutex_lock(&bql);
        }
        sleep_ns = end_ns - now_ns();
    }
    cpu->scheduled = 0;
}

static void *run_vcpu(void *of)
{
    struct vcpu *cpu = of;
    sigset_t none;
    sigemptyset(&none);
    pthread_mutex_lock(&bql);
    while (!ends) {
        pthread_mutex_unlock(&bql);
        long begin_ns = now_ns();
        if (!cpu->work)
            ppoll(NULL, 0, NULL, &none);
        if (begin_ns > from_ns)
            cpu->run_ns += now_ns() - begin_ns;
        pthread_mutex_lock(&bql);
        pthread_mutex_lock(&cpu->work_mutex);
        int has_work = cpu->work;
        cpu->work = 0;
        pthread_mutex_unlock(&cpu->work_mutex);
        if (has_work)
            throttle(cpu);
    }
    pthread_mutex_unlock(&bql);
    return NULL;
}

int main(int argc, char **argv)
{
    count = atoi(argv[1]);
    share = atoi(argv[2]) / 100.0;
    extra_ns = argc > 4 ? atoi(argv[4]) * 1000L : 0;
    long seconds = atoi(argv[3]), ticks = 0, skipped = 0, first_ns = 0, kick_ns = 0;
    vcpus = calloc(count, sizeof *vcpus);
    sigset_t ipi;
    sigemptyset(&ipi);
    sigaddset(&ipi, SIGUSR1);
    signal(SIGUSR1, ignore);
    pthread_sigmask(SIG_BLOCK, &ipi, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    from_ns = now_ns() + S + 2 * (long)(SLICE_NS / (1 - share));
    for (int i = 0; i < count; i++) {
        pthread_mutex_init(&vcpus[i].work_mutex, NULL);
        pthread_cond_init(&vcpus[i].halt_cond, &monotonic);
        pthread_create(&vcpus[i].thread, &small, run_vcpu, &vcpus[i]);
    }
    usleep(500000);
    long until_ns = from_ns + seconds * S, next_ns = now_ns();
    while (next_ns < until_ns) {
        struct timespec until = { next_ns / S, next_ns % S };
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        pthread_mutex_lock(&bql);
        tick_ns = now_ns();
        if (!first_ns && tick_ns > from_ns)
            first_ns = tick_ns;
        for (int i = 0; i < count; i++) {
            if (atomic_exchange(&vcpus[i].scheduled, 1)) {
                skipped += first_ns > 0;
                continue;
            }
            pthread_mutex_lock(&vcpus[i].work_mutex);
            vcpus[i].work = 1;
            pthread_mutex_unlock(&vcpus[i].work_mutex);
            pthread_kill(vcpus[i].thread, SIGUSR1);
        }
        ticks += first_ns > 0;
        kick_ns += first_ns ? now_ns() - tick_ns : 0;
        next_ns = now_ns() + (long)(SLICE_NS / (1 - share));
        pthread_mutex_unlock(&bql);
    }
    long end_ns = now_ns(), run_ns = 0, wait_ns = 0, waits = 0;
    for (int i = 0; i < count; i++) {
        run_ns += vcpus[i].run_ns;
        wait_ns += vcpus[i].wait_ns;
        waits += vcpus[i].waits;
    }
    printf("%d vCPUs, %.0f %%: %ld ticks, mean wait %.0f us, last %.0f us, kick %.2f us, turn %.2f us, "
           "skipped %.1f %%, ran %.2f %%\n",
           count, 100 * share, ticks, wait_ns / 1e3 / waits, last_ns / 1e3, kick_ns / 1e3 / waits,
           2 * (wait_ns / 1e3 / waits - kick_ns / 1e3 / ticks) * ticks / waits, 100.0 * skipped / ticks / count, 100.0 * run_ns / count / (end_ns - first_ns));
    return 0;
}
