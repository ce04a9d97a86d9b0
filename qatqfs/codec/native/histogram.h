/* How often each byte occurs, counted or estimated from a sample. A sample misses bytes, so it is completed. */
#ifndef QATQFS_HISTOGRAM_H
#define QATQFS_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

/* Data is divided into lines, and each line into pieces. A sample has one piece of each line. */
#define HISTOGRAM_PIECE 16 /* bytes */
#define HISTOGRAM_PIECES 8
#define HISTOGRAM_LINE (HISTOGRAM_PIECES * HISTOGRAM_PIECE) /* bytes */

#define HISTOGRAM_COUNTED_PER_SYMBOL 192 /* bytes that a sample needs at least for each symbol */

/* Four tables of counts. In a single one, a byte that repeats would wait for its own count. */
typedef struct {
    uint16_t part[4][256];
} histogram_parts;

ALWAYS_INLINE void histogram_count_piece(histogram_parts *parts, const uint8_t *piece)
{
    uint64_t word, next;
    memcpy(&word, piece, 8);
    memcpy(&next, piece + 8, 8);
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        parts->part[k & 1][(uint8_t)(word >> 8 * k)]++;
        parts->part[2 + (k & 1)][(uint8_t)(next >> 8 * k)]++;
    }
}

#define HISTOGRAM_KERNEL(SET, TARGET)                                                                                  \
    TARGET static void histogram_sum_##SET(const histogram_parts *parts, uint32_t *counts)                             \
    {                                                                                                                  \
        for (int s = 0; s < 256; s++)                                                                                  \
            counts[s] += (uint32_t)parts->part[0][s] + parts->part[1][s] + parts->part[2][s] + parts->part[3][s];      \
    }

FOR_EACH_INSTRUCTION_SET(HISTOGRAM_KERNEL)

#define HISTOGRAM_KERNEL_ROW(SET, TARGET) histogram_sum_##SET,
static void (*const histogram_sum_kernels[])(const histogram_parts *,
                                             uint32_t *) = {FOR_EACH_INSTRUCTION_SET(HISTOGRAM_KERNEL_ROW)};

/* Count the bytes of at most 128 KiB. */
static void histogram(const uint8_t *data, size_t size, uint32_t *counts)
{
    histogram_parts parts;
    size_t i = 0;
    memset(&parts, 0, sizeof parts);
    memset(counts, 0, 256 * sizeof *counts);
    for (; i + HISTOGRAM_PIECE <= size; i += HISTOGRAM_PIECE)
        histogram_count_piece(&parts, data + i);
    for (; i < size; i++)
        parts.part[0][data[i]]++;
    histogram_sum_kernels[instruction_set](&parts, counts);
}

/* Count one piece of each whole line of data[0..size), at most 128 KiB. `line` is the number of the first line. The
 * piece changes from line to line like the multiples of the golden ratio, so that no period of the data (rows of heads,
 * say) hides anything. Each `turn` below HISTOGRAM_PIECES takes other pieces. Returns how many bytes were counted. */
static uint32_t histogram_add_sample(const uint8_t *data, size_t size, size_t line, uint32_t turn, uint32_t *counts)
{
    histogram_parts parts;
    const size_t lines = size / HISTOGRAM_LINE;
    memset(&parts, 0, sizeof parts);
    for (size_t i = 0; i < lines; i++, data += HISTOGRAM_LINE) {
        const uint32_t which = ((uint32_t)(line + i) * 0x9e3779b1u) / (UINT32_MAX / HISTOGRAM_PIECES + 1) ^ turn;
        histogram_count_piece(&parts, data + HISTOGRAM_PIECE * which);
    }
    histogram_sum_kernels[instruction_set](&parts, counts);
    return (uint32_t)lines * HISTOGRAM_PIECE;
}

/* ---- completing a sample: count each byte that it missed once, and return how many there are ---------------- */

static uint32_t histogram_complete_portable(const uint8_t *data, size_t size, uint32_t *counts)
{
    uint8_t seen[256] = {0};
    uint32_t missed = 0;
    for (size_t i = 0; i < size; i++)
        seen[data[i]] = 1;
    for (int s = 0; s < 256; s++)
        if (seen[s] && counts[s] == 0) {
            counts[s] = 1;
            missed++;
        }
    return missed;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define HISTOGRAM_STRETCH 1024 /* bytes checked at a time */

/* The set of bytes that have a count: 16 bits for each low nibble, one for each high nibble. */
typedef struct {
    uint8_t below[16], above[16]; /* for high nibbles below 8, and for the others */
} histogram_set;

static inline void histogram_add(histogram_set *set, int byte)
{
    (byte < 128 ? set->below : set->above)[byte & 15] |= (uint8_t)(1 << (byte >> 4 & 7));
}

/* Return zero for each of 32 bytes that is not in the set. */
__attribute__((target("avx2"), always_inline)) static inline __m256i histogram_found(const histogram_set *set,
                                                                                     __m256i bytes)
{
    const __m256i nibble = _mm256_set1_epi8(15), bits = _mm256_set1_epi64x((long long)0x8040201008040201ULL);
    const __m256i below = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)set->below));
    const __m256i above = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)set->above));
    const __m256i low = _mm256_and_si256(bytes, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
    const __m256i row = _mm256_blendv_epi8(_mm256_shuffle_epi8(below, low), _mm256_shuffle_epi8(above, low), bytes);
    return _mm256_and_si256(row, _mm256_shuffle_epi8(bits, high));
}

__attribute__((target("avx2"))) static uint32_t histogram_complete_avx2(const uint8_t *data, size_t size,
                                                                        uint32_t *counts)
{
    histogram_set set = {{0}, {0}};
    uint32_t missed = 0;
    size_t start = 0;
    for (int s = 0; s < 256; s++)
        if (counts[s])
            histogram_add(&set, s);
    while (start < size) {
        const size_t stop = size - start > HISTOGRAM_STRETCH ? start + HISTOGRAM_STRETCH : size;
        size_t at = start;
        __m256i missing = _mm256_setzero_si256();
        for (; at + 32 <= stop; at += 32) {
            const __m256i found = histogram_found(&set, _mm256_loadu_si256((const __m256i *)(data + at)));
            missing = _mm256_or_si256(missing, _mm256_cmpeq_epi8(found, _mm256_setzero_si256()));
        }
        if (!_mm256_testz_si256(missing, missing)) { /* find the first of them, and continue there */
            uint32_t which = 0;
            for (at = start; which == 0; at += 32) {
                const __m256i found = histogram_found(&set, _mm256_loadu_si256((const __m256i *)(data + at)));
                which = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(found, _mm256_setzero_si256()));
                start = at + (size_t)__builtin_ctz(which | 1u << 31);
            }
            counts[data[start]] = 1;
            histogram_add(&set, data[start]);
            missed++;
            continue;
        }
        for (; at < stop; at++) /* the last bytes */
            if (counts[data[at]] == 0) {
                counts[data[at]] = 1;
                histogram_add(&set, data[at]);
                missed++;
            }
        start = stop;
    }
    return missed;
}
#endif

static uint32_t histogram_complete(const uint8_t *data, size_t size, uint32_t *counts)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (instruction_set >= SET_AVX2)
        return histogram_complete_avx2(data, size, counts);
#endif
    return histogram_complete_portable(data, size, counts);
}

/* Complete the counts of a sample that turn 0 took, so that a table can be made from them: every byte that occurs gets
 * a count, and each symbol has enough counted bytes. Returns how many bytes have been counted in all. */
static uint32_t histogram_settle(const uint8_t *data, size_t size, size_t line, uint32_t *counts, uint32_t counted)
{
    uint32_t wanted = 0;
    counted += histogram_complete(data, size, counts);
    for (int s = 0; s < 256; s++)
        wanted += counts[s] != 0;
    wanted *= HISTOGRAM_COUNTED_PER_SYMBOL;
    if (counted < wanted && wanted > size / 2) {
        histogram(data, size, counts);
        counted = (uint32_t)size;
    }
    for (uint32_t turn = 1; counted < wanted && turn < HISTOGRAM_PIECES; turn++)
        counted += histogram_add_sample(data, size, line, turn, counts);
    return counted;
}

#endif
