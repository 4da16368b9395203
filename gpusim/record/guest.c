/* A guest that writes pages in a known pattern, counts its writes, and does nothing else.
 *
 * It has no operating system. QEMU starts it by multiboot (32 bits, no paging), with its settings
 * as KEY=NUMBER on the command line (gpusim/record/scenarios.py explains them). The guest fills
 * memory and measures its clock, its busy loop and its full write speed. It prints READY on COM1
 * and writes until the machine ends. COUNTER holds the number of its writes since boot.
 *
 * The guest does nothing that makes an emulator flush its TLB, because a flush lets the TLB grow.
 * Under TCG before QEMU 9.0 a sync misses a write to a page whose translation is cached as dirty
 * (include/exec/ram_addr.h:cpu_physical_memory_sync_dirty_bitmap, whose fast path does not reset
 * the TLB). The TLB has some hundred pages and the working set many thousand, so that is rare.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define COUNTER ((volatile u32 *)0x200000)
#define FILL_FROM_MIB 16u
#define PAGES_PER_MIB 256u
#define PAGE_BITS 12

__asm__(".section .multiboot, \"a\"\n"
        ".long 0x1badb002, 2, -(0x1badb002 + 2)\n" /* magic, flags: report the memory, checksum */
        ".text\n"
        ".globl start\n"
        "start: mov $stack_end, %esp\n"
        "push %ebx\n" /* the loader's data, in multiboot's layout */
        "call guest\n");

static u8 stack[4096] __attribute__((aligned(16), used));
__asm__(".globl stack_end\n.set stack_end, stack + 4096\n");

struct multiboot {
    u32 flags, lower_kib, upper_kib, boot_device;
    const char *command_line;
};

static u32 first_page, pages, hot_pages, hot_percent, is_random, crash_after;
static u32 count, next;
static u64 random_state = 1;

static inline void out(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 in(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 ticks(void)
{
    u64 value;
    __asm__ volatile("rdtsc" : "=A"(value));
    return value;
}

/* Divide 64 by 32 bits. The quotient has to fit into 32 bits. There is no libgcc here. */
static inline u32 divide(u64 value, u32 by, u32 *rest)
{
    u32 quotient;
    __asm__("divl %4" : "=a"(quotient), "=d"(*rest) : "a"((u32)value), "d"((u32)(value >> 32)), "rm"(by));
    return quotient;
}

static void print(const char *text)
{
    for (; *text; text++) {
        while (!(in(0x3fd) & 0x20))
            ;
        out(0x3f8, *text);
    }
}

static void print_number(u32 number)
{
    char text[11], *at = text + 10;

    *at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    print(at);
}

/* Return the number after " KEY=", or `otherwise` if the key is missing. */
static u32 setting(const char *line, const char *key, u32 otherwise)
{
    for (; *line; line++) {
        const char *at = line, *want = key;
        u32 number = 0;

        while (*want && *at == *want)
            at++, want++;
        if (*want)
            continue;
        for (; *at >= '0' && *at <= '9'; at++)
            number = number * 10 + (*at - '0');
        return number;
    }
    return otherwise;
}

/* Without an interrupt table the next interrupt is a triple fault, which resets the machine. */
static void crash(void)
{
    static const u16 no_table[3];
    __asm__ volatile("lidt %0\n int3" : : "m"(no_table));
}

/* Draw from 0 to below - 1: the high half of a 64-bit congruential generator (Knuth's MMIX). */
static inline u32 draw(u32 below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return ((random_state >> 32) * below) >> 32;
}

static inline u32 next_page(void)
{
    u32 page = next;

    if (!is_random) {
        next = page + 1 == pages ? 0 : page + 1;
        return page;
    }
    if (!hot_pages)
        return draw(pages);
    return draw(100) < hot_percent ? draw(hot_pages) : hot_pages + draw(pages - hot_pages);
}

static inline void write_page(void)
{
    volatile u32 *page = (u32 *)((first_page + next_page()) << PAGE_BITS);

    *page = ++count | 1; /* never zero, so that no written page is a zero page */
    *COUNTER = count;
    if (count == crash_after)
        crash();
}

static __attribute__((noinline)) void spin(u32 loops)
{
    while (loops--)
        __asm__ volatile("");
}

/* Return clock ticks per millisecond, by channel 2 of the PIT: 50 ms are 59659 of its periods. */
static u32 ticks_per_ms(void)
{
    u32 least = ~0u;

    for (int time = 0; time < 4; time++) { /* a delay makes a measurement longer, never shorter */
        u64 begin;
        u32 taken;

        out(0x61, (in(0x61) & ~2) | 1); /* gate on, speaker off */
        out(0x43, 0xb0);                /* channel 2, both bytes, output rises at the end */
        out(0x42, 59659 & 255);
        out(0x42, 59659 >> 8);
        begin = ticks();
        while (!(in(0x61) & 0x20))
            ;
        taken = ticks() - begin;
        least = taken < least ? taken : least;
    }
    return least / 50;
}

/* Return busy loops per millisecond: the maximum of ten times 20 ms, which had the least delay. */
static u32 loops_per_ms(u32 khz)
{
    u32 most = 0;

    for (int time = 0; time < 10; time++) {
        u64 end = ticks() + (u64)khz * 20;
        u32 loops = 0;

        for (; (s64)(ticks() - end) < 0; loops += 1000)
            spin(1000);
        most = loops > most ? loops : most;
    }
    return most / 20;
}

/* Return page writes per second with a clock read before each, as in a guest that catches up. */
static u32 flat_out_per_s(u32 khz, u32 ms)
{
    u32 before = count, rest;
    u64 end = ticks() + (u64)khz * ms;

    while ((s64)(ticks() - end) < 0)
        write_page();
    return divide((u64)(count - before) * 1000, ms, &rest);
}

/* Every write has its time. Late writes are made at full speed. */
static void write_by_the_clock(u32 khz, u32 rate)
{
    u32 rest, late = 0, interval = divide((u64)khz * 1000, rate, &rest);

    for (u64 due = ticks();; due += interval) {
        while ((s64)(ticks() - due) < 0)
            ;
        write_page();
        late += rest;
        if (late >= rate)
            late -= rate, due++;
    }
}

__attribute__((used, noreturn)) static void guest(const struct multiboot *loaded)
{
    const char *line = loaded->command_line;
    u32 mem_mib = (loaded->upper_kib + 1023) >> 10; /* above 1 MiB, without firmware */
    u32 rate = setting(line, " rate=", 0), delay = setting(line, " delay=", 0);
    u32 flat_ms = setting(line, " flat=", 500), khz, loops, flat, rest;
    u32 fill_end = FILL_FROM_MIB + setting(line, " fill=", mem_mib - 1 - FILL_FROM_MIB);

    first_page = setting(line, " base=", 32) * PAGES_PER_MIB;
    pages = setting(line, " size=", 1) * PAGES_PER_MIB;
    is_random = setting(line, " mode=", 1);
    hot_pages = setting(line, " hot=", 0) * PAGES_PER_MIB;
    hot_percent = setting(line, " hotpct=", 0);
    crash_after = setting(line, " crash=", 0);

    for (u32 page = FILL_FROM_MIB * PAGES_PER_MIB; page < fill_end * PAGES_PER_MIB; page++)
        *(volatile u32 *)(page << PAGE_BITS) = page;
    khz = ticks_per_ms();
    loops = loops_per_ms(khz);
    flat = flat_out_per_s(khz, flat_ms);
    if (rate && !delay) /* the writes themselves take a part of the time */
        delay = divide((u64)loops * 1000, rate, &rest) - divide((u64)loops * 1000, flat, &rest);
    if ((int)delay < 0)
        delay = 0;

    print("READY mem="), print_number(mem_mib);
    print(" tsc_khz="), print_number(khz);
    print(" loops_ms="), print_number(loops);
    print(" flat_per_s="), print_number(flat);
    print(" delay="), print_number(delay);
    print("\n");

    if (setting(line, " paced=", 0) && rate)
        write_by_the_clock(khz, rate);
    for (;; spin(delay))
        write_page();
}
