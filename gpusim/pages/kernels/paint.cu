// The primitives on a GPU: paint uses one block per chunk, take uses one block for one chunk.
//
// A block draws its chunk into a tile in shared memory, 4096 words of 64 pages. Then it merges the
// tile into the bitmaps. All values are integers, all sums are exact, and OR and AND commute. So
// the order of threads and blocks cannot change a bit. The file includes no header, because NVRTC
// compiles it without those of the toolkit.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define CHUNK_SHIFT 18
#define CHUNK_PAGES (1 << CHUNK_SHIFT)
#define CHUNK_WORDS (CHUNK_PAGES / 64)
#define WARP 32
#define ALL (~0ull)

// Increment and finaliser of splitmix64, as in draw.py.
#define GOLDEN 0x9E3779B97F4A7C15ull
#define MIX1 0xBF58476D1CE4E5B9ull
#define MIX2 0x94D049BB133111EBull

// primitives.Op
#define MERGE 0
#define CLEAR_LOG 1
#define MERGE_LOG 2
#define ZERO 3

// A cell's packed word: bits 0 to 7 threshold, bit 8 inverted, from bit 16 on the count.
#define INVERTED 256
#define CERTAIN INVERTED // inverted, and no page is missed
#define COUNT_SHIFT 16

#define PAINT_THREADS 512 // with a tile of 32 KiB, threads and not memory limit the blocks per SM
#define BATCH 4           // words that a thread loads at a time
#define OWN_WORDS (CHUNK_WORDS / PAINT_THREADS)

__device__ __forceinline__ u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * MIX1;
    z = (z ^ (z >> 27)) * MIX2;
    return z ^ (z >> 31);
}

// Set each bit with probability threshold / 256, from the lowest plane up.
__device__ __forceinline__ u64 planes(u64 key, int word, u32 threshold) {
    u64 bits = 0;
    for (int plane = 0; plane < 8; ++plane) {
        if (!(threshold & ((2u << plane) - 1))) continue; // below the lowest set bit: no effect
        u64 hash = mix(key + (u64)(plane * CHUNK_WORDS + word + 1) * GOLDEN);
        bits = threshold >> plane & 1 ? bits | hash : bits & hash;
    }
    return bits;
}

// The bits of a word that lie in first <= page < last. The word holds at least one of them.
__device__ __forceinline__ u64 inside(int word, int first, int last) {
    u64 mask = ALL;
    if (word == first / 64) mask &= ALL << (first % 64);
    if (word == (last - 1) / 64) mask &= ALL >> (63 - (last - 1) % 64);
    return mask;
}

// Shared memory has native atomics of 32 bits. Those of 64 bits are loops, so use two halves.
__device__ __forceinline__ void or_word(u32 *halves, int word, u64 bits) {
    if ((u32)bits) atomicOr(&halves[2 * word], (u32)bits);
    if (bits >> 32) atomicOr(&halves[2 * word + 1], (u32)(bits >> 32));
}

// Draw the cells low <= c < high into `tile`. All threads of the block must call it.
__device__ __forceinline__ void draw(u64 *tile, i64 low, i64 high, const i64 *cell_first,
                                     const i64 *cell_last, const u64 *cell_packed,
                                     const u64 *cell_key) {
    const int me = threadIdx.x;
    u32 *halves = (u32 *)tile;
    for (int word = me; word < CHUNK_WORDS; word += PAINT_THREADS) tile[word] = 0;
    __syncthreads();
    // If there are few cells, the whole block shares each cell. Otherwise each warp has its own
    // cell.
    const int team = high - low < PAINT_THREADS / WARP ? PAINT_THREADS : WARP;
    const int lane = me % team, teams = PAINT_THREADS / team;
    for (i64 c = low + me / team; c < high; c += teams) {
        const u64 packed = cell_packed[c];
        const u32 threshold = packed & 255;
        if (packed == CERTAIN || !(packed & (INVERTED | 255))) continue;
        const int first = cell_first[c] & (CHUNK_PAGES - 1);
        const int last = first + (int)(cell_last[c] - cell_first[c]);
        for (int word = first / 64 + lane; word < (last + 63) / 64; word += team) {
            const u64 bits = threshold ? planes(cell_key[c], word, threshold) : 0;
            const u64 mask = inside(word, first, last);
            if (mask == ALL)
                tile[word] = packed & INVERTED ? ~bits : bits;
            else // another cell may share this word
                or_word(halves, word, (packed & INVERTED ? ~bits : bits) & mask);
        }
    }
    __syncthreads();
    for (i64 c = low + me / team; c < high; c += teams) {
        const u64 packed = cell_packed[c], count = packed >> COUNT_SHIFT;
        const u64 start = cell_key[c] ^ MIX1, pages = cell_last[c] - cell_first[c];
        const u32 first = cell_first[c] & (CHUNK_PAGES - 1);
        for (u64 i = lane; i < count; i += team) {
            const u32 page = first + (u32)((mix(start + (i + 1) * GOLDEN) >> 18) * pages >> 46);
            const u32 bit = 1u << page % 32;
            if (packed & INVERTED)
                atomicAnd(&halves[page / 32], ~bit);
            else
                atomicOr(&halves[page / 32], bit);
        }
    }
    __syncthreads();
    for (i64 c = low + me / team; c < high; c += teams) { // certain cells may overlap any cell
        if (cell_packed[c] != CERTAIN) continue;
        const int first = cell_first[c] & (CHUNK_PAGES - 1);
        const int last = first + (int)(cell_last[c] - cell_first[c]);
        for (int word = first / 64 + lane; word < (last + 63) / 64; word += team)
            or_word(halves, word, inside(word, first, last));
    }
    __syncthreads();
}

// Draw and merge one chunk per block. Chunk chunks[b] has the cells low[b] <= c < high[b], and for
// ZERO the cells mask_low[b] <= c < mask_high[b] of the mask. log and zero may be null. fresh[b]
// receives the newly dirty pages, unzeroed[b] the pending zero pages before, less those after.
extern "C" __global__ void __launch_bounds__(PAINT_THREADS, 2)
    paint(int op, const i64 *__restrict__ chunks, const i64 *__restrict__ low,
          const i64 *__restrict__ high, const i64 *__restrict__ cell_first,
          const i64 *__restrict__ cell_last, const u64 *__restrict__ cell_packed,
          const u64 *__restrict__ cell_key, const i64 *__restrict__ mask_low,
          const i64 *__restrict__ mask_high, const i64 *__restrict__ mask_first,
          const i64 *__restrict__ mask_last, const u64 *__restrict__ mask_packed,
          const u64 *__restrict__ mask_key, u64 *dirty, u64 *log, u64 *zero, i64 *fresh,
          i64 *unzeroed) {
    __shared__ u64 tile[CHUNK_WORDS];
    __shared__ u64 total; // fresh in the low half, unzeroed in the high half, modulo 2^32
    const int me = threadIdx.x;
    if (!me) total = 0;
    draw(tile, low[blockIdx.x], high[blockIdx.x], cell_first, cell_last, cell_packed, cell_key);

    const i64 row = chunks[blockIdx.x] * CHUNK_WORDS;
    dirty += row;
    u64 counts = 0;
    if (zero) zero += row;
    if (op == ZERO) {
        u64 written[OWN_WORDS]; // a thread reads and clears the same words of the tile
#pragma unroll
        for (int j = 0; j < OWN_WORDS; ++j) written[j] = tile[me + j * PAINT_THREADS];
        draw(tile, mask_low[blockIdx.x], mask_high[blockIdx.x], mask_first, mask_last, mask_packed,
             mask_key);
#pragma unroll
        for (int j = 0; j < OWN_WORDS; ++j) {
            const int word = me + j * PAINT_THREADS;
            const u64 gained = written[j] & tile[word] & ~zero[word];
            if (!gained) continue;
            zero[word] |= gained;
            counts -= (u64)__popcll(gained & dirty[word]) << 32;
        }
    } else if (zero) {
        for (int word = me; word < CHUNK_WORDS; word += PAINT_THREADS) {
            const u64 lost = zero[word] & tile[word];
            if (!lost) continue;
            zero[word] ^= lost;
            counts += (u64)__popcll(lost & dirty[word]) << 32;
        }
    }
    if (op != MERGE && op != ZERO) log += row;
    for (int base = me; op != ZERO && base < CHUNK_WORDS; base += BATCH * PAINT_THREADS) {
        u64 b[BATCH], k[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; ++j) {
            const int word = base + j * PAINT_THREADS;
            b[j] = op != CLEAR_LOG ? dirty[word] : 0;
            k[j] = op != MERGE ? log[word] : 0;
        }
#pragma unroll
        for (int j = 0; j < BATCH; ++j) {
            const int word = base + j * PAINT_THREADS;
            u64 t = tile[word];
            if (op == CLEAR_LOG) {
                log[word] = t & ~k[j];
                continue;
            }
            if (op == MERGE_LOG) {
                if (t & ~k[j]) log[word] = k[j] | t;
                t |= k[j];
            }
            if (t & ~b[j]) {
                dirty[word] = b[j] | t;
                counts += __popcll(t & ~b[j]);
                if (op == MERGE_LOG && zero) // a page may be new and zero
                    counts -= (u64)__popcll(t & ~b[j] & zero[word]) << 32;
            }
        }
    }
    for (int step = WARP / 2; step; step /= 2) counts += __shfl_down_sync(~0u, counts, step);
    if (me % WARP == 0) atomicAdd(&total, counts);
    __syncthreads();
    if (!me) {
        fresh[blockIdx.x] = (u32)total;
        unzeroed[blockIdx.x] = (int)(total >> 32); // has a sign
    }
}

#define TAKE_THREADS 1024
#define TAKE_WORDS (CHUNK_WORDS / TAKE_THREADS)

// Whether each budget (limit, cost of a normal page, cost of a zero page) lasts for these pages.
__device__ __forceinline__ bool last_for(u64 normal, u64 zeros, const u64 *budgets, int n) {
    for (int i = 0; i < n; ++i)
        if (normal * budgets[3 * i + 1] + zeros * budgets[3 * i + 2] > budgets[3 * i]) return false;
    return true;
}

// Take pending pages from `page` on while n budgets last. dirty and zero are the chunk's words, and
// zero may be null. taken receives the page behind the last page taken, or `page` if there is none,
// the number of normal and of zero pages taken, and whether a budget ended before the chunk did.
extern "C" __global__ void __launch_bounds__(TAKE_THREADS)
    take(u64 *dirty, const u64 *zero, int page, const u64 *__restrict__ budgets, int n, i64 *taken) {
    __shared__ u64 sums[2][TAKE_THREADS]; // normal pages low, zero pages high
    __shared__ int behind;
    const int me = threadIdx.x;
    u64 word[TAKE_WORDS], zeros[TAKE_WORDS], own = 0;
#pragma unroll
    for (int j = 0; j < TAKE_WORDS; ++j) {
        const int w = me * TAKE_WORDS + j;
        word[j] = w < page / 64 ? 0 : dirty[w];
        if (w == page / 64) word[j] &= ALL << (page % 64);
        zeros[j] = zero ? zero[w] & word[j] : 0;
        own += ((u64)__popcll(zeros[j]) << 32) + __popcll(word[j] ^ zeros[j]);
    }
    if (!me) behind = page;
    int from = 0;
    sums[from][me] = own;
    __syncthreads();
    for (int step = 1; step < TAKE_THREADS; step *= 2, from ^= 1) {
        sums[from ^ 1][me] = sums[from][me] + (me >= step ? sums[from][me - step] : 0);
        __syncthreads();
    }
    const u64 before = sums[from][me] - own;
    u64 normal = (u32)before, zero_pages = before >> 32;
    // If the pages of the threads before do not fit, then an earlier thread stops the take.
    bool ends_here = false;
    const bool ended_before = !last_for(normal, zero_pages, budgets, n);
    int end = 0; // behind my last page taken
#pragma unroll
    for (int j = 0; j < TAKE_WORDS; ++j) {
        if (ended_before || ends_here || !word[j]) continue;
        const int w = me * TAKE_WORDS + j;
        const u64 zeros_after = zero_pages + __popcll(zeros[j]);
        const u64 normal_after = normal + __popcll(word[j] ^ zeros[j]);
        if (last_for(normal_after, zeros_after, budgets, n)) {
            dirty[w] ^= word[j];
            end = 64 * w + 64 - __clzll(word[j]);
            normal = normal_after;
            zero_pages = zeros_after;
            continue;
        }
        ends_here = true;
        for (int p = 0;; ++p) { // a budget ends in this word
            const u64 bit = 1ull << p, is_zero = zeros[j] >> p & 1;
            if (!(word[j] & bit)) continue;
            if (!last_for(normal + 1 - is_zero, zero_pages + is_zero, budgets, n)) {
                dirty[w] ^= word[j] & (bit - 1);
                break;
            }
            end = 64 * w + p + 1;
            normal += 1 - is_zero;
            zero_pages += is_zero;
        }
    }
    if (end) atomicMax(&behind, end);
    if (ends_here || (!ended_before && me == TAKE_THREADS - 1)) {
        taken[1] = normal;
        taken[2] = zero_pages;
        taken[3] = ends_here;
    }
    __syncthreads();
    if (!me) taken[0] = behind;
}
