/* Finding long matches in a byte plane.
 *
 * In the planes of a tensor, most repetitions that a general match finder sees are chance, and cost more than the bytes
 * they replace. So a match is taken only if its bytes would cost more as literals, by the histogram of the plane, than
 * a sequence costs. Not every position enters the table, and not every position is looked up. Long matches are found
 * all the same, in a third of the time. Nothing predicts which positions have a match. So some hundred are looked up at
 * a time without a branch, and only the hits are examined one by one.
 */
#ifndef QATQFS_MATCHES_H
#define QATQFS_MATCHES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#define MATCHES_KEY 8            /* bytes hashed, and the shortest match */
#define MATCHES_LOOKUP 4         /* one position in so many is looked up */
#define MATCHES_ENTER 3          /* one position in so many enters the table */
#define MATCHES_ROUND 12         /* bytes: a multiple of both strides */
#define MATCHES_SLICE 1536       /* bytes that are looked up together */
#define MATCHES_COST_UNIT 16     /* costs are in sixteenths of a bit */
#define MATCHES_SEQUENCE_BITS 25 /* cost of a sequence with a new offset */
#define MATCHES_REPEATED_BITS 14 /* cost of a sequence that repeats the last offset */
#define MATCHES_MAX_TABLE_LOG 17
#define MATCHES_SAMPLED_FROM (4 * 1024) /* literals from which on only a sample is counted */
#define MATCHES_MAX_BLOCK (128 * 1024)
#define MATCHES_MAX_SEQUENCES (MATCHES_MAX_BLOCK / MATCHES_KEY)
/* While they are written, literals may take up to 11 bits each. A sequence has at most ten bytes. */
#define MATCHES_BLOCK_ROOM (MATCHES_MAX_BLOCK * HUFFMAN_MAX_BITS / 8 + 2 * MATCHES_MAX_SEQUENCES + 1024)

typedef struct {
    uint32_t literals; /* bytes before the match */
    uint32_t length;
    uint32_t offset;
} match_sequence;

/* A position in the low half, and an earlier one with the same bytes in the high half. */
typedef uint64_t match_hit;

typedef struct {
    const uint8_t *data; /* the plane; matches reach back to its start */
    size_t size;
    uint16_t costs[256]; /* of each byte as a literal */
    uint32_t *table;     /* position by hash; 0 may also mean none */
    int table_log;
    int noise;      /* literals cost eight bits each, and are stored */
    size_t entered; /* positions below this are in the table */
    uint32_t last_offset;
    match_hit hits[MATCHES_SLICE / MATCHES_LOOKUP + 1];
    match_sequence sequences[MATCHES_MAX_SEQUENCES];
    uint8_t literals[MATCHES_MAX_BLOCK + 32];
} match_finder;

static inline uint64_t matches_load(const uint8_t *at)
{
    uint64_t key;
    memcpy(&key, at, 8);
    return key;
}

static inline size_t matches_hash(uint64_t key, int shift)
{
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> shift);
}

/* Prepare for a plane with this histogram. The table has room for 1 << MATCHES_MAX_TABLE_LOG positions. */
static void matches_start(match_finder *finder, const uint8_t *data, size_t size, const uint32_t *counts, int noise,
                          uint32_t *table)
{
    int log = 10;
    uint32_t total = 0;
    while (log < MATCHES_MAX_TABLE_LOG && (size_t)8 << log < size)
        log++;
    memset(table, 0, sizeof *table << log);
    finder->data = data;
    finder->size = size;
    finder->noise = noise;
    finder->table = table;
    finder->table_log = log;
    finder->entered = 0;
    finder->last_offset = 1; /* RFC 8878 section 3.1.1.5 */
    for (int s = 0; s < 256; s++)
        total += counts[s];
    for (int s = 0; s < 256; s++) {
        float bits = log2f((float)total / ((float)counts[s] + 0.5f));
        finder->costs[s] = (uint16_t)(MATCHES_COST_UNIT * (bits < 1 ? 1 : bits)); /* Huffman codes have a bit or more */
    }
}

static inline int matches_pays(const match_finder *finder, const uint8_t *from, size_t length, uint32_t offset)
{
    const uint32_t bits = offset == finder->last_offset ? MATCHES_REPEATED_BITS : MATCHES_SEQUENCE_BITS;
    uint32_t cost = 0;
    if (length > MATCHES_SEQUENCE_BITS) /* at a bit or more for each byte */
        return 1;
    for (size_t i = 0; i < length; i++)
        cost += finder->costs[from[i]];
    return cost > MATCHES_COST_UNIT * bits;
}

/* Return how many bytes from `at` on, and before `stop`, equal those `offset` before them. */
static inline size_t matches_ahead(const uint8_t *data, size_t at, size_t stop, size_t offset)
{
    const size_t start = at;
    for (; at + 8 <= stop; at += 8) {
        const uint64_t different = matches_load(data + at) ^ matches_load(data + at - offset);
        if (different)
            return at - start + (size_t)(__builtin_ctzll(different) >> 3);
    }
    while (at < stop && data[at] == data[at - offset])
        at++;
    return at - start;
}

/* Return how many bytes before `at`, down to `start`, equal those `offset` before them. */
static inline size_t matches_behind(const uint8_t *data, size_t at, size_t start, size_t offset)
{
    const size_t stop = at;
    start = start > offset ? start : offset;
    for (; at >= start + 8; at -= 8) {
        const uint64_t different = matches_load(data + at - 8) ^ matches_load(data + at - 8 - offset);
        if (different)
            return stop - at + (size_t)(__builtin_clzll(different) >> 3);
    }
    while (at > start && data[at - 1] == data[at - 1 - offset])
        at--;
    return stop - at;
}

/* Look up positions from `at` to `stop`, at most a slice, and enter others. Returns the number of hits, and sets `next`
 * to where to continue. */
ALWAYS_INLINE size_t matches_look_up_body(match_finder *finder, size_t at, size_t stop, size_t *next)
{
    const uint8_t *const data = finder->data;
    uint32_t *const table = finder->table;
    match_hit *const hits = finder->hits;
    const int shift = 64 - finder->table_log;
    size_t count = 0, entered = finder->entered;
#define MATCHES_ENTER_AT(AT) table[matches_hash(matches_load(data + (AT)), shift)] = (uint32_t)(AT)
#define MATCHES_LOOK_UP_AT(AT)                                                                                         \
    do {                                                                                                               \
        const uint64_t key = matches_load(data + (AT));                                                                \
        const uint32_t earlier = table[matches_hash(key, shift)];                                                      \
        hits[count] = (AT) | (uint64_t)earlier << 32;                                                                  \
        count += (size_t)((earlier < (AT)) & (matches_load(data + earlier) == key));                                   \
    } while (0)
    for (; entered < at; entered += MATCHES_ENTER)
        MATCHES_ENTER_AT(entered);
    if (stop - at > MATCHES_SLICE)
        stop = at + MATCHES_SLICE;
    for (; at + MATCHES_ROUND <= stop; at += MATCHES_ROUND) {
#pragma GCC unroll 12
        for (size_t k = 0; k < MATCHES_ROUND; k++) {
            if (k % MATCHES_LOOKUP == 0)
                MATCHES_LOOK_UP_AT(at + k);
            if (k % MATCHES_ENTER == 0)
                MATCHES_ENTER_AT(at + k);
        }
        entered = at + MATCHES_ROUND;
    }
    for (; at < stop; at += MATCHES_LOOKUP)
        MATCHES_LOOK_UP_AT(at);
#undef MATCHES_ENTER_AT
#undef MATCHES_LOOK_UP_AT
    finder->entered = entered;
    *next = at;
    return count;
}

#define MATCHES_KERNEL(SET, TARGET)                                                                                    \
    TARGET static size_t matches_look_up_##SET(match_finder *finder, size_t at, size_t stop, size_t *next)             \
    {                                                                                                                  \
        return matches_look_up_body(finder, at, stop, next);                                                           \
    }

FOR_EACH_INSTRUCTION_SET(MATCHES_KERNEL)

#define MATCHES_KERNEL_ROW(SET, TARGET) matches_look_up_##SET,
static size_t (*const matches_look_up_kernels[])(match_finder *, size_t, size_t,
                                                 size_t *) = {FOR_EACH_INSTRUCTION_SET(MATCHES_KERNEL_ROW)};

/* Find the matches of data[start..stop). Returns how many. The literals after the last match are not recorded. */
static __attribute__((noinline)) size_t matches_find(match_finder *finder, size_t start, size_t stop)
{
    const uint8_t *const data = finder->data;
    size_t found = 0, anchor = start, at = start;
    if (stop - start < 2 * MATCHES_KEY)
        return 0;
    while (at + MATCHES_KEY <= stop) {
        size_t next;
        const size_t hits = matches_look_up_kernels[instruction_set](finder, at, stop - MATCHES_KEY + 1, &next);
        for (size_t i = 0; i < hits; i++) {
            const size_t here = (uint32_t)finder->hits[i], offset = here - (size_t)(finder->hits[i] >> 32);
            if (here < at) /* inside the last match */
                continue;
            const size_t end = here + MATCHES_KEY + matches_ahead(data, here + MATCHES_KEY, stop, offset);
            const size_t from = here - matches_behind(data, here, anchor, offset);
            if (!matches_pays(finder, data + from, end - from, (uint32_t)offset))
                continue;
            finder->sequences[found++] =
                (match_sequence){(uint32_t)(from - anchor), (uint32_t)(end - from), (uint32_t)offset};
            finder->last_offset = (uint32_t)offset;
            anchor = at = end;
        }
        at = at > next ? at : next;
        if (finder->entered + 256 < at) /* of a long match, only the end is entered */
            finder->entered = at - 64;
    }
    return found;
}

#endif
