/* Writing with finite state entropy (RFC 8878 section 4.1): normalized counts, their description, tables, states.
 *
 * zstd uses it for the weights of Huffman tables and for the codes of sequences. There are at most 64 symbols here. No
 * symbol gets the "less than one" probability, which saves nothing at these sizes.
 */
#ifndef QATQFS_FSE_WRITE_H
#define QATQFS_FSE_WRITE_H

#include <stdint.h>

#include "bits.h"

#define FSE_MAX_LOG 8
#define FSE_MAX_SYMBOLS 64

/* ---- tables ------------------------------------------------------------------------------------------------- */

typedef struct {
    int log;
    uint16_t states[1 << FSE_MAX_LOG];
    int32_t first[FSE_MAX_SYMBOLS];       /* from a state to its symbol's part of `states` */
    uint32_t bits_delta[FSE_MAX_SYMBOLS]; /* a state plus this has the number of bits to write in bits 16 and up */
} fse_table;

/* Scale counts, which add up to `total`, to a sum of 1 << log. Each count stays at least 1, so the log needs room. */
static void fse_normalize(const uint32_t *counts, int symbols, uint32_t total, int log, int *scaled)
{
    int left = 1 << log, largest = 0;
    for (int s = 0; s < symbols; s++) {
        scaled[s] = (int)(((uint64_t)counts[s] << log) / total);
        if (counts[s] && scaled[s] == 0)
            scaled[s] = 1;
        left -= scaled[s];
        if (scaled[s] > scaled[largest])
            largest = s;
    }
    /* If there are many rare symbols, take from any that has two. */
    for (; left < 0 && scaled[largest] + left < 1; left++) {
        int s = 0;
        while (scaled[s] < 2 || (s == largest && scaled[s] < 3))
            s++;
        scaled[s]--;
    }
    scaled[largest] += left;
}

static void fse_put_counts(bit_writer *to, const int *scaled, int log)
{
    int remaining = (1 << log) + 1, threshold = 1 << log, count_bits = log + 1, after_zero = 0;
    bits_put(to, (uint64_t)(log - 5), 4);
    for (int s = 0; remaining > 1;) {
        if (after_zero) {
            int zeros = 0;
            while (scaled[s] == 0)
                s++, zeros++;
            for (; zeros >= 3; zeros -= 3)
                bits_put(to, 3, 2);
            bits_put(to, (uint64_t)zeros, 2);
        }
        int most = 2 * threshold - 1 - remaining, value = scaled[s] + 1;
        remaining -= scaled[s++];
        if (value >= threshold)
            value += most;
        bits_put(to, (uint64_t)value, count_bits - (value < most));
        after_zero = value == 1;
        for (; remaining < threshold; threshold >>= 1)
            count_bits--;
    }
    bits_pad(to);
}

static void fse_build(fse_table *table, const int *scaled, int symbols, int log)
{
    uint8_t spread[1 << FSE_MAX_LOG];
    int size = 1 << log, step = (size >> 1) + (size >> 3) + 3;
    int next[FSE_MAX_SYMBOLS], total = 0, at = 0;
    table->log = log;
    for (int s = 0; s < symbols; s++) {
        for (int i = 0; i < scaled[s]; i++, at = (at + step) & (size - 1))
            spread[at] = (uint8_t)s;
        next[s] = total;
        if (scaled[s]) {
            int high = 0;
            while ((scaled[s] - 1) >> (high + 1))
                high++;
            int most = log - (scaled[s] > 1 ? high : 0);
            table->bits_delta[s] = ((uint32_t)most << 16) - ((uint32_t)scaled[s] << most);
            table->first[s] = total - scaled[s];
            total += scaled[s];
        }
    }
    for (int i = 0; i < size; i++)
        table->states[next[spread[i]]++] = (uint16_t)(size + i);
}

/* ---- states: the last symbol starts one, and the symbols before it follow backwards --------------------------- */

static inline uint32_t fse_start(const fse_table *table, int symbol)
{
    if (table->log == 0)
        return 0;
    uint32_t bits = (table->bits_delta[symbol] + (1 << 15)) >> 16;
    uint32_t value = (bits << 16) - table->bits_delta[symbol];
    return table->states[(int32_t)(value >> bits) + table->first[symbol]];
}

/* Return the next state. Adds at most FSE_MAX_LOG bits, which wait to be written. */
static inline uint32_t fse_put(bit_writer *to, const fse_table *table, uint32_t state, int symbol)
{
    if (table->log == 0) /* with one symbol only there is nothing to write */
        return 0;
    uint32_t bits = (state + table->bits_delta[symbol]) >> 16;
    bits_add(to, state & ((1u << bits) - 1), bits);
    return table->states[(int32_t)(state >> bits) + table->first[symbol]];
}

static inline void fse_finish(bit_writer *to, const fse_table *table, uint32_t state)
{
    bits_put(to, state & ((1u << table->log) - 1), table->log);
}

#endif
