/* Cheap statistics of a byte plane, and the frame that codes its single bytes.
 *
 * A plane is taken in segments of 128 KiB, the largest block of zstd, and these in units of 4 KiB with a histogram
 * each. Neighbours whose histograms are alike are merged into blocks, since each block has a Huffman table of its
 * own; that is worth it where layers, heads or pages meet. Which blocks there are, and whether matches could pay,
 * are guesses that cost size when they are wrong; nothing else depends on them.
 *
 * In a long plane an eighth of the bytes is counted, for counting takes longer than coding; a table made from enough
 * of them for its symbols loses some hundredths of a percent. Which bytes occur at all is asked of every byte.
 */
#ifndef QATQFS_PLANE_STATS_H
#define QATQFS_PLANE_STATS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "frame_write.h"
#include "histogram.h"

#define STATS_UNIT 4096
#define STATS_UNITS (STATS_SEGMENT / STATS_UNIT)
#define STATS_BLOCK_BITS (8 * 15)        /* block header, literals header, jump table, sequence count */
#define STATS_SYMBOL_BITS 3.6f           /* what one more symbol adds to the description of a table */
#define STATS_LEAST_GAIN (1.f / 64)      /* less than that is not worth the time of the decoder */
#define STATS_SAMPLE 256                 /* bytes looked at in each unit when noise is looked for */
#define STATS_SAMPLED_FROM (64 * 1024)   /* bytes of a plane of which a sample is counted */
#define STATS_UNSEEN_BITS 1.44f          /* what a symbol costs more than its block's sample says, for each byte that
                                            a counted one stands for besides itself: 1 / ln 2 */

typedef struct {
    uint32_t counts[256];
    uint32_t counted; /* bytes that were */
    uint32_t size;
    int coded;  /* 0: stored, 1: Huffman, -1: one byte repeated */
    float bits; /* estimated, with what is around them */
} stats_block;

typedef struct {
    /* Set by the caller; frames are written as the share of repeats has it. */
    int exact; /* count every byte */
    int runs;  /* look for them */
    int noise; /* write a frame of nothing else */
    double singles_below, matches_from, matches_in_noise_from;
    stats_block *blocks; /* room for one per unit */
    uint8_t *frames[2];  /* of single bytes, of matches too: room for stats_frame_room(size) bytes each */

    double equal;          /* share of bytes that equal the one before, if runs are looked for */
    double chance;         /* what that share would be if the order did not matter */
    double repeats;        /* share of sampled strings of 9 bytes that were there before */
    size_t block_count;    /* 0 for noise: single bytes have nothing to give, and equal and chance are unknown */
    size_t frame_sizes[2]; /* 0 where none was written */
} plane_stats;

/* x * log2 x of less than 2**31 to about 2e-4, without a branch or a table, so that compilers make vectors of it. */
ALWAYS_INLINE float stats_xlogx(uint32_t x)
{
    union {
        float f;
        uint32_t u;
    } value = {(float)(int32_t)x}, mantissa;
    float exponent = (float)(int32_t)((value.u >> 23) - 127);
    mantissa.u = (value.u & 0x7fffff) | 0x3f800000;
    float m = mantissa.f; /* a fit of log2 on 1 to 2 */
    float log = exponent - 2.510148f + m * (4.059838f + m * (-2.107613f + m * (0.638230f + m * -0.080307f)));
    return value.f * log;
}

/* Of some counts: the sum of x * log2 x, and how many are not zero. */
typedef struct {
    float sum;
    int symbols;
} stats_measure;

/* Measure counts, or the sums of two sets of them, which are written to `both`. */
ALWAYS_INLINE stats_measure stats_measure_body(const uint32_t *counts, const uint32_t *more, uint32_t *both)
{
    float sums[16] = {0};
    uint32_t symbols[16] = {0};
    for (int i = 0; i < 256; i += 16)
        for (int k = 0; k < 16; k++) {
            uint32_t count = counts[i + k];
            if (more != NULL)
                both[i + k] = count += more[i + k];
            sums[k] += stats_xlogx(count);
            symbols[k] += count != 0;
        }
    for (int width = 8; width > 0; width /= 2)
        for (int k = 0; k < width; k++) {
            sums[k] += sums[k + width];
            symbols[k] += symbols[k + width];
        }
    return (stats_measure){sums[0], (int)symbols[0]};
}

#define STATS_KERNEL(SET, TARGET)                                                                                      \
    TARGET static stats_measure stats_measure_##SET(const uint32_t *counts)                                            \
    {                                                                                                                  \
        return stats_measure_body(counts, NULL, NULL);                                                                 \
    }                                                                                                                  \
    TARGET static stats_measure stats_measure_both_##SET(const uint32_t *restrict counts,                              \
                                                         const uint32_t *restrict more, uint32_t *restrict both)       \
    {                                                                                                                  \
        return stats_measure_body(counts, more, both);                                                                 \
    }

FOR_EACH_INSTRUCTION_SET(STATS_KERNEL)

static const struct {
    stats_measure (*one)(const uint32_t *counts);
    stats_measure (*both)(const uint32_t *counts, const uint32_t *more, uint32_t *both);
} stats_kernels[] = {
#define STATS_KERNEL_ROW(SET, TARGET) {stats_measure_##SET, stats_measure_both_##SET},
    FOR_EACH_INSTRUCTION_SET(STATS_KERNEL_ROW)};

/* Estimate what a block takes, when its counts have been measured. */
static void stats_judge(stats_block *block, stats_measure measured)
{
    float stored = 8.f * (float)block->size + 24;
    float scale = (float)block->size / (float)block->counted;
    float coded = scale * (stats_xlogx(block->counted) - measured.sum) +
                  (float)measured.symbols * (STATS_SYMBOL_BITS + STATS_UNSEEN_BITS * (scale - 1)) + STATS_BLOCK_BITS;
    block->coded = measured.symbols <= 1 ? -1 : coded < stored * (1 - STATS_LEAST_GAIN);
    block->bits = block->coded < 0 ? 32 : block->coded ? coded : stored;
}

/* Bytes that equal the one `lag` before them, among data[lag..size). */
static size_t stats_equal_at(const uint8_t *data, size_t size, size_t lag)
{
    size_t equal = 0;
    for (size_t i = lag; i < size;) {
        size_t stop = size - i > 4096 ? i + 4096 : size;
        for (; i + 64 <= stop;) {
            uint8_t sums[64] = {0};
            size_t rounds = (stop - i) / 64;
            for (size_t r = 0; r < rounds; r++, i += 64)
                for (int k = 0; k < 64; k++)
                    sums[k] = (uint8_t)(sums[k] + (data[i + k] == data[i + k - lag]));
            for (int k = 0; k < 64; k++)
                equal += sums[k];
        }
        for (; i < stop; i++)
            equal += data[i] == data[i - lag];
    }
    return equal;
}

/* The byte that comes closest to one of 192: neither so rare that it says nothing nor so frequent that it costs. */
static uint8_t stats_anchor(const uint32_t *counts, size_t size)
{
    float wanted = (float)size / 192 + 1, best = -1;
    int anchor = 0;
    for (int s = 0; s < 256; s++) {
        float distance = (float)counts[s] > wanted ? (float)counts[s] / wanted : wanted / ((float)counts[s] + 1e-6f);
        if (best < 0 || distance < best) {
            best = distance;
            anchor = s;
        }
    }
    return (uint8_t)anchor;
}

/* Note where in data[0..size), at most 2**16 bytes, a byte occurs, in order; returns how often. Where it does is
 * unforeseeable, so that a branch for each would cost more than all the rest; there is room for as many as there are
 * bytes, and two more. */
static size_t stats_occurrences_portable(const uint8_t *data, size_t size, uint8_t byte, uint16_t *where)
{
    size_t count = 0;
    for (const uint8_t *at = data; (at = memchr(at, byte, size - (size_t)(at - data))) != NULL; at++)
        where[count++] = (uint16_t)(at - data);
    return count;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,bmi,popcnt"))) static size_t stats_occurrences_avx2(const uint8_t *data, size_t size,
                                                                                uint8_t byte, uint16_t *where)
{
    const __m256i wanted = _mm256_set1_epi8((char)byte);
    size_t count = 0, i = 0;
    for (; i + 64 <= size; i += 64) {
        const __m256i first = _mm256_loadu_si256((const __m256i *)(data + i));
        const __m256i second = _mm256_loadu_si256((const __m256i *)(data + i + 32));
        uint64_t found = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(first, wanted)) |
                         (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(second, wanted)) << 32;
        const size_t more = (size_t)__builtin_popcountll(found);
        where[count] = (uint16_t)(i + _tzcnt_u64(found)); /* there are hardly ever more than two */
        found = _blsr_u64(found);
        where[count + 1] = (uint16_t)(i + _tzcnt_u64(found));
        for (size_t k = 2; k < more; k++) {
            found = _blsr_u64(found);
            where[count + k] = (uint16_t)(i + _tzcnt_u64(found));
        }
        count += more;
    }
    for (; i < size; i++)
        if (data[i] == byte)
            where[count++] = (uint16_t)i;
    return count;
}
#endif

static size_t stats_occurrences(const uint8_t *data, size_t size, uint8_t byte, uint16_t *where)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (instruction_set >= SET_AVX2)
        return stats_occurrences_avx2(data, size, byte, where);
#endif
    return stats_occurrences_portable(data, size, byte, where);
}

/* Share of strings that start with a byte `anchor` and occurred earlier: content picks the samples, so that a
 * repetition is found at any distance. */
static double stats_repeats(const uint8_t *data, size_t size, uint8_t anchor)
{
    enum { KEY = 8, LOG = 11, SLICE = 4096 };
    uint32_t table[1 << LOG];
    uint16_t where[SLICE + 2];
    size_t samples = 0, hits = 0;
    if (size < KEY + 1)
        return 0;
    memset(table, 0, sizeof table);
    for (size_t start = 0, length; start < size - KEY; start += length) {
        length = size - KEY - start < SLICE ? size - KEY - start : SLICE;
        const size_t found = stats_occurrences(data + start, length, anchor, where);
        for (size_t i = 0; i < found; i++) {
            uint64_t key, other;
            const size_t at = start + where[i] + 1;
            memcpy(&key, data + at, KEY);
            uint32_t *slot = &table[(key * 0x9e3779b97f4a7c15u) >> (64 - LOG)];
            memcpy(&other, data + *slot, KEY);
            hits += (size_t)((*slot != 0) & (key == other));
            *slot = (uint32_t)at;
        }
        samples += found;
    }
    return samples ? (double)hits / (double)samples : 0;
}

/* Whether single bytes have nothing to give anywhere: the histogram of a sample from every unit is flat. */
static int stats_is_noise(const uint8_t *data, size_t size, uint32_t *counts)
{
    uint8_t seen[256];
    size_t taken = 0;
    memset(counts, 0, 256 * sizeof *counts);
    for (size_t at = 0; at + STATS_SAMPLE <= size; at += STATS_UNIT) {
        int different = 0;
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < STATS_SAMPLE; i++) {
            counts[data[at + i]]++;
            seen[data[at + i]] = 1;
        }
        for (int s = 0; s < 256; s++)
            different += seen[s];
        if (different < 120) /* some 162 in a flat distribution */
            return 0;
        taken += STATS_SAMPLE;
    }
    if (taken < 8 * STATS_SAMPLE)
        return 0;
    float bits = (stats_xlogx((uint32_t)taken) - stats_kernels[instruction_set].one(counts).sum) / (float)taken;
    float short_of = 255 / (2 * 0.6931f) / (float)taken; /* expected of a flat distribution */
    return bits + short_of > 8 * (1 - STATS_LEAST_GAIN);
}

/* Merge neighbours as long as that saves bits; returns how many blocks are left. */
static int stats_merge(stats_block *blocks, int count)
{
    stats_block both;
    for (int before = count + 1; count < before;) {
        int kept = 0;
        before = count;
        for (int i = 0; i < before; i++, kept++) {
            if (kept != i)
                blocks[kept] = blocks[i];
            if (i + 1 < before) {
                both.size = blocks[i].size + blocks[i + 1].size;
                both.counted = blocks[i].counted + blocks[i + 1].counted;
                stats_judge(&both, stats_kernels[instruction_set].both(blocks[i].counts, blocks[i + 1].counts,
                                                                       both.counts));
                if (both.bits <= blocks[i].bits + blocks[i + 1].bits)
                    blocks[kept] = both, i++;
            }
        }
        count = kept;
    }
    return count;
}

/* Count a unit at an offset of the plane, or a sample of it. */
static void stats_count_unit(const uint8_t *data, size_t at, size_t size, int sampled, stats_block *unit)
{
    unit->size = (uint32_t)size;
    if (sampled && size % HISTOGRAM_LINE == 0) {
        memset(unit->counts, 0, sizeof unit->counts);
        unit->counted = histogram_add_sample(data + at, size, at / HISTOGRAM_LINE, 0, unit->counts);
    } else {
        histogram(data + at, size, unit->counts);
        unit->counted = unit->size;
    }
    stats_judge(unit, stats_kernels[instruction_set].one(unit->counts));
}

/* Cut the plane into blocks; returns how many bytes were counted. */
static size_t stats_find_blocks(const uint8_t *data, size_t size, plane_stats *stats, uint32_t *counts)
{
    const int sampled = !stats->exact && size >= STATS_SAMPLED_FROM;
    size_t counted = 0;
    for (size_t at = 0; at < size;) {
        stats_block *blocks = stats->blocks + stats->block_count;
        int count = 0;
        size_t stop = size - at > STATS_SEGMENT ? at + STATS_SEGMENT : size;
        for (size_t from = at; from < stop; from += STATS_UNIT, count++)
            stats_count_unit(data, from, stop - from < STATS_UNIT ? stop - from : STATS_UNIT, sampled, &blocks[count]);
        count = stats_merge(blocks, count);
        for (int i = 0; i < count; at += blocks[i++].size)
            if (sampled) {
                stats_block *block = &blocks[i];
                block->counted =
                    histogram_settle(data + at, block->size, at / HISTOGRAM_LINE, block->counts, block->counted);
                stats_judge(block, stats_kernels[instruction_set].one(block->counts));
            }
        stats->block_count += (size_t)count;
    }
    memset(counts, 0, 256 * sizeof *counts);
    for (size_t i = 0; i < stats->block_count; counted += stats->blocks[i++].counted)
        for (int s = 0; s < 256; s++)
            counts[s] += stats->blocks[i].counts[s];
    return counted;
}

/* Look how often a byte equals the one before, of a plane with those counts. */
static void stats_look_for_runs(const uint8_t *data, size_t size, const uint32_t *counts, size_t counted,
                                plane_stats *stats)
{
    double chance = 0;
    for (int s = 0; s < 256; s++)
        chance += (double)counts[s] * counts[s];
    stats->chance = chance / ((double)counted * (double)counted);
    stats->equal = size > 1 ? (double)stats_equal_at(data, size, 1) / (double)(size - 1) : 0;
}

#endif
