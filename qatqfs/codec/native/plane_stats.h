/* Cheap statistics of a byte plane: is it noise, where do its blocks end, could matches pay.
 *
 * A plane is cut into segments of 128 KiB, the largest block of zstd, and these into units of 4 KiB with a histogram
 * each. Neighbours with similar histograms are merged into blocks. Each block has a Huffman table of its own, which
 * pays where layers, heads or pages meet. All of this is guesswork that decides about size alone, never about
 * correctness.
 *
 * In a long plane only an eighth of the bytes is counted, because counting takes longer than coding. A table made from
 * enough of them loses some hundredths of a percent. Which bytes occur at all is found from every byte.
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
#define STATS_UNITS (FRAME_BLOCK_BYTES / STATS_UNIT)
#define STATS_BLOCK_BITS (8 * 15)      /* overhead: block header, literals header, jump table, sequence count */
#define STATS_SYMBOL_BITS 3.6f         /* for each symbol in the description of a table */
#define STATS_LEAST_GAIN (1.f / 64)    /* a smaller gain is not worth the decoder's time */
#define STATS_SAMPLE 256               /* bytes of each unit that the test for noise counts */
#define STATS_SAMPLED_FROM (64 * 1024) /* bytes of a plane from which on only a sample is counted */
/* A symbol costs more than a sample says: 1 / ln 2 bits for each other byte that a counted one stands for. */
#define STATS_UNSEEN_BITS 1.44f

typedef struct {
    uint32_t counts[256];
    uint32_t counted; /* how many bytes were counted */
    uint32_t size;    /* how many there are */
    int coded;        /* 0: stored, 1: Huffman, -1: one byte repeated */
    float bits;       /* estimated size of the block, headers included */
} stats_block;

typedef struct {
    /* Set by the caller. */
    int exact; /* count every byte */
    int runs;  /* measure `equal` and `chance` */
    int noise; /* expect noise, and give up if the plane is not */
    /* Shares of repeats that ask for a frame. */
    double singles_below, matches_from, matches_in_noise_from;
    stats_block *blocks; /* room for one per unit */
    uint8_t *frames[2];  /* for single bytes, and with matches: plane_frame_room(size) bytes of room each */

    /* Found. */
    double equal;          /* share of bytes that equal the one before; 0 for noise */
    double chance;         /* what that share would be in random order; 0 for noise */
    double repeats;        /* share of sampled strings of 9 bytes that occurred before */
    size_t block_count;    /* 0 for noise, where coding single bytes gains nothing */
    size_t frame_sizes[2]; /* 0 if a frame was not written */
} plane_stats;

/* x * log2 x for x below 2**31, to about 2e-4. It has no branch and no table, so that compilers can vectorise it. */
ALWAYS_INLINE float stats_xlogx(uint32_t x)
{
    union {
        float f;
        uint32_t u;
    } value = {(float)(int32_t)x}, mantissa;
    float exponent = (float)(int32_t)((value.u >> 23) - 127);
    mantissa.u = (value.u & 0x7fffff) | 0x3f800000;
    float m = mantissa.f; /* a polynomial fit of log2 from 1 to 2 */
    float log = exponent - 2.510148f + m * (4.059838f + m * (-2.107613f + m * (0.638230f + m * -0.080307f)));
    return value.f * log;
}

/* The sum of x * log2 x over counts, and how many counts are not zero. */
typedef struct {
    float sum;
    int symbols;
} stats_measure;

/* Measure counts, or the sums of two sets of counts, which are written to `both`. */
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

/* Estimate the size of a block from its measured counts, and how it is coded best. */
static void stats_judge(stats_block *block, stats_measure measured)
{
    float stored = 8.f * (float)block->size + 24;
    float scale = (float)block->size / (float)block->counted;
    float coded = scale * (stats_xlogx(block->counted) - measured.sum) +
                  (float)measured.symbols * (STATS_SYMBOL_BITS + STATS_UNSEEN_BITS * (scale - 1)) + STATS_BLOCK_BITS;
    block->coded = measured.symbols <= 1 ? -1 : coded < stored * (1 - STATS_LEAST_GAIN);
    block->bits = block->coded < 0 ? 32 : block->coded ? coded : stored;
}

/* Return how many bytes of data[lag..size) equal the one `lag` before them. */
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

/* Return the byte whose share is closest to one in 192: not too rare to say anything, not too frequent to be slow. */
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

/* Find where a byte occurs in data[0..size), at most 2**16 bytes, in ascending order. Returns how often. Nothing
 * predicts where it occurs, so a branch for each byte would cost more than all the rest. Two more entries are
 * overwritten. */
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
        where[count] = (uint16_t)(i + _tzcnt_u64(found)); /* more than two are very rare */
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

/* Return the share of strings after a byte `anchor` that occurred earlier. Content picks the samples, so a repetition
 * is found at any distance. */
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

/* Whether coding single bytes gains nothing anywhere, because the histogram of a sample from every unit is flat. */
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
        if (different < 120) /* a flat distribution has some 162 */
            return 0;
        taken += STATS_SAMPLE;
    }
    if (taken < 8 * STATS_SAMPLE)
        return 0;
    float bits = (stats_xlogx((uint32_t)taken) - stats_kernels[instruction_set].one(counts).sum) / (float)taken;
    float short_of = 255 / (2 * 0.6931f) / (float)taken; /* by which a sample of a flat distribution falls short */
    return bits + short_of > 8 * (1 - STATS_LEAST_GAIN);
}

/* Merge neighbours while that saves bits. Returns how many blocks are left. */
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
                stats_judge(&both,
                            stats_kernels[instruction_set].both(blocks[i].counts, blocks[i + 1].counts, both.counts));
                if (both.bits <= blocks[i].bits + blocks[i + 1].bits)
                    blocks[kept] = both, i++;
            }
        }
        count = kept;
    }
    return count;
}

/* Count the bytes of a unit at an offset of the plane, or a sample of them. */
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

/* Cut the plane into blocks. `counts` gets the histogram of all. Returns how many bytes were counted. */
static size_t stats_find_blocks(const uint8_t *data, size_t size, plane_stats *stats, uint32_t *counts)
{
    const int sampled = !stats->exact && size >= STATS_SAMPLED_FROM;
    size_t counted = 0;
    for (size_t at = 0; at < size;) {
        stats_block *blocks = stats->blocks + stats->block_count;
        int count = 0;
        size_t stop = size - at > FRAME_BLOCK_BYTES ? at + FRAME_BLOCK_BYTES : size;
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

/* Measure how often a byte equals the one before, and how often that would happen by chance. */
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
