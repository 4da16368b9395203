/*
 * How long does a thread wait for the mutex that QEMU's sending thread holds in its bursts?
 *
 *   gcc -O2 -shared -fPIC -o bitmap_mutex.so studies/bitmap_mutex.c -pthread
 *   BITMAP_MUTEX_LOG=waits.txt LD_PRELOAD=$PWD/bitmap_mutex.so chrt -f 50 qemu-system-x86_64 -S ...
 *
 * Then migrate with max-bandwidth 0, so that no burst ends with a sleep. A thread that holds one mutex
 * for 45 ms and more, four times, is the sender. From then on a thread of ours asks for that mutex at
 * random times, as a fallback sync does. Each line of the log is one wait that began in a burst: the
 * bursts that ended before we had the mutex, the microseconds of the wait, and the nanoseconds for
 * which the sender had freed the mutex before its last burst.
 *
 * Source of the burst: migration/ram.c:ram_save_iterate (MAX_WAIT). Behind it the thread flushes the
 * main channel, closes the section, and begins the next one (savevm.c:qemu_savevm_state_iterate).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MOST_HELD = 16, BURST_NS = 45000000, BURSTS_SEEN = 4, LEAST_US = 40000, RANDOM_US = 60000 };

static int (*lock)(pthread_mutex_t *), (*unlock)(pthread_mutex_t *);
static pthread_mutex_t *volatile bitmap_mutex;
static volatile long bursts, gap_ns;
static __thread struct { pthread_mutex_t *mutex; long since_ns; } held[MOST_HELD];
static __thread int held_count, bursts_seen;
static __thread pthread_mutex_t *freed;
static __thread long freed_ns;

static long now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

__attribute__((constructor)) static void find_functions(void)
{
    lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

static void *wait_for_mutex(void *log)
{
    unsigned seed = getpid();
    for (;;) {
        usleep(LEAST_US + rand_r(&seed) % RANDOM_US);
        long before = bursts, from_ns = now_ns();
        lock(bitmap_mutex);
        long passed = bursts - before, wait_ns = now_ns() - from_ns;
        unlock(bitmap_mutex);
        if (passed)
            fprintf(log, "%ld %ld %ld\n", passed, wait_ns / 1000, gap_ns);
        fflush(log);
    }
    return NULL;
}

static void start_waiting(pthread_mutex_t *mutex)
{
    const char *path = getenv("BITMAP_MUTEX_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    pthread_t thread;
    bitmap_mutex = mutex;
    if (log)
        pthread_create(&thread, NULL, wait_for_mutex, log);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (!lock)
        find_functions();
    if (mutex == freed) {
        gap_ns = now_ns() - freed_ns;
        freed = NULL;
        if (++bursts_seen == BURSTS_SEEN && !bitmap_mutex)
            start_waiting(mutex);
    }
    int result = lock(mutex);
    if (held_count < MOST_HELD) {
        held[held_count].mutex = mutex;
        held[held_count].since_ns = now_ns();
        held_count++;
    }
    return result;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int place = held_count - 1;
    while (place >= 0 && held[place].mutex != mutex)
        place--;
    if (!unlock)
        find_functions();
    if (place < 0)
        return unlock(mutex);
    long length_ns = now_ns() - held[place].since_ns;
    for (held_count--; place < held_count; place++)
        held[place] = held[place + 1];
    if (length_ns < BURST_NS)
        return unlock(mutex);
    if (mutex == bitmap_mutex)
        bursts++;
    int result = unlock(mutex);
    freed = mutex;
    freed_ns = now_ns();
    return result;
}
