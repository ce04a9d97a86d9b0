/* Writing the blocks of a zstd frame that hold matches (RFC 8878 section 3.1.1.3). */
#ifndef QATQFS_MATCHES_WRITE_H
#define QATQFS_MATCHES_WRITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "fse_write.h"
#include "histogram.h"
#include "huffman_write.h"
#include "matches.h"

/* ---- sequences ---------------------------------------------------------------------------------------------- */

static inline int matches_high_bit(uint32_t value)
{
    return 31 - __builtin_clz(value);
}

static inline int matches_literals_code(uint32_t count, int *extra)
{
    static const uint8_t codes[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                      16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 20, 20, 21, 21, 21, 21,
                                      22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 23,
                                      24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24};
    static const uint8_t bits[25] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4};
    if (count < 64) {
        *extra = bits[codes[count]];
        return codes[count];
    }
    *extra = matches_high_bit(count);
    return *extra + 19;
}

static inline int matches_length_code(uint32_t length, int *extra)
{
    uint32_t base = length - 3; /* codes as in RFC 8878 section 3.1.1.3.2.1.1 */
    if (base < 32) {
        *extra = 0;
        return (int)base;
    }
    if (base < 128) {
        static const uint8_t firsts[] = {32, 34, 36, 38, 40, 44, 48, 56, 64, 80, 96};
        static const uint8_t bits[] = {1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5};
        int i = 10;
        while (base < firsts[i])
            i--;
        *extra = bits[i];
        return 32 + i;
    }
    *extra = matches_high_bit(base);
    return *extra + 36;
}

typedef struct {
    uint8_t code[3];  /* of literals, offset and length: the order of their tables */
    uint8_t extra[3]; /* how many bits follow each code */
    uint32_t value[3];
} match_codes;

/* Write the description of the table for one of the three codes. Returns its compression mode. */
static __attribute__((noinline)) int matches_put_table(bit_writer *to, const match_codes *codes, size_t count,
                                                       int which, fse_table *table)
{
    enum { ONE_SYMBOL = 1, DESCRIBED = 2 };
    uint32_t counts[FSE_MAX_SYMBOLS] = {0};
    int scaled[FSE_MAX_SYMBOLS] = {0}, different = 0, symbols = 0;
    for (size_t i = 0; i < count; i++)
        counts[codes[i].code[which]]++;
    for (int s = 0; s < FSE_MAX_SYMBOLS; s++) {
        different += counts[s] != 0;
        symbols = counts[s] ? s + 1 : symbols;
    }
    if (different == 1) {
        table->log = 0;
        bits_put(to, (uint64_t)(symbols - 1), 8);
        return ONE_SYMBOL;
    }
    int log = matches_high_bit((uint32_t)count) - 2;
    log = log < 5 ? 5 : log > FSE_MAX_LOG ? FSE_MAX_LOG : log;
    while (1 << log < 2 * different)
        log++;
    fse_normalize(counts, symbols, (uint32_t)count, log, scaled);
    fse_put_counts(to, scaled, log);
    fse_build(table, scaled, symbols, log);
    return DESCRIBED;
}

/* Write a section of one or more sequences (RFC 8878 section 3.1.1.3.2). `last_offset` is that of the block before. */
static __attribute__((noinline)) uint8_t *matches_put_sequences(uint8_t *out, const match_sequence *sequences,
                                                                size_t count, match_codes *codes, uint32_t last_offset)
{
    for (size_t i = 0; i < count; i++) {
        int literals_bits, length_bits;
        uint32_t offset = sequences[i].offset, value = offset + 3;
        if (offset == last_offset && sequences[i].literals > 0)
            value = 1; /* means the last offset again */
        last_offset = offset;
        codes[i].value[0] = sequences[i].literals;
        codes[i].value[1] = value;
        codes[i].value[2] = sequences[i].length - 3;
        codes[i].code[0] = (uint8_t)matches_literals_code(sequences[i].literals, &literals_bits);
        codes[i].code[1] = (uint8_t)matches_high_bit(value);
        codes[i].code[2] = (uint8_t)matches_length_code(sequences[i].length, &length_bits);
        codes[i].extra[0] = (uint8_t)literals_bits;
        codes[i].extra[1] = codes[i].code[1];
        codes[i].extra[2] = (uint8_t)length_bits;
    }
    if (count < 128) {
        *out++ = (uint8_t)count;
    } else {
        *out++ = (uint8_t)((count >> 8) + 128);
        *out++ = (uint8_t)count;
    }
    fse_table tables[3];
    bit_writer to = {0, 0, out + 1};
    int modes = 0;
    for (int which = 0; which < 3; which++)
        modes |= matches_put_table(&to, codes, count, which, &tables[which]) << (6 - 2 * which);
    *out = (uint8_t)modes;
    uint32_t states[3] = {0};
    for (size_t i = count; i-- > 0;) {
        if (i == count - 1) {
            for (int which = 0; which < 3; which++)
                states[which] = fse_start(&tables[which], codes[i].code[which]);
        } else { /* written in reverse: a reader takes literals, length, offset */
            states[1] = fse_put(&to, &tables[1], states[1], codes[i].code[1]);
            states[2] = fse_put(&to, &tables[2], states[2], codes[i].code[2]);
            states[0] = fse_put(&to, &tables[0], states[0], codes[i].code[0]);
        }
        static const uint8_t order[3] = {0, 2, 1};
        for (int k = 0; k < 3; k++) {
            const uint32_t which = order[k], bits = codes[i].extra[which];
            bits_add(&to, codes[i].value[which] & ((1u << bits) - 1), bits);
            bits_write(&to);
        }
    }
    fse_finish(&to, &tables[2], states[2]);
    fse_finish(&to, &tables[1], states[1]);
    fse_finish(&to, &tables[0], states[0]);
    bits_close(&to);
    return to.at;
}

/* ---- blocks ------------------------------------------------------------------------------------------------- */

/* Write stored literals, or one that is repeated (RFC 8878 section 3.1.1.3.1). */
static uint8_t *matches_put_plain_literals(uint8_t *out, const uint8_t *literals, size_t size, int repeated)
{
    bit_writer to = {0, 0, out};
    uint64_t kind = (uint64_t)(repeated && size > 0);
    if (size < 32)
        bits_put(&to, kind | (uint64_t)size << 3, 8);
    else if (size < 4096)
        bits_put(&to, kind | 1 << 2 | (uint64_t)size << 4, 16);
    else
        bits_put(&to, kind | 3 << 2 | (uint64_t)size << 4, 24);
    size_t kept = kind ? 1 : size;
    memcpy(to.at, literals, kept);
    return to.at + kept;
}

/* The memory of a thread that finds and writes matches. */
typedef struct {
    match_finder finder;
    uint32_t table[1 << MATCHES_MAX_TABLE_LOG];
    match_codes codes[MATCHES_MAX_SEQUENCES];
    uint8_t block[MATCHES_BLOCK_ROOM]; /* the content of the last block */
} match_space;

/* Write the content of a compressed block with matches. Literals are Huffman-coded unless the plane is noise. Returns
 * the size, 0 if there is no match. */
static size_t matches_put_block(match_space *space, size_t start, size_t stop)
{
    match_finder *finder = &space->finder;
    uint8_t *out = space->block;
    uint32_t last_offset = finder->last_offset, counts[256] = {0};
    size_t count = matches_find(finder, start, stop), kept = 0, at = start;
    if (count == 0)
        return 0;
    for (size_t i = 0; i < count; i++) {
        const size_t literals = finder->sequences[i].literals;
        if (literals <= 16 && at + 16 <= finder->size) /* a fixed size is faster; later literals overwrite the excess */
            memcpy(finder->literals + kept, finder->data + at, 16);
        else
            memcpy(finder->literals + kept, finder->data + at, literals);
        kept += literals;
        at += literals + finder->sequences[i].length;
    }
    memcpy(finder->literals + kept, finder->data + at, stop - at);
    kept += stop - at;
    if (finder->noise) {
        uint8_t *const end = matches_put_plain_literals(out, finder->literals, kept, 0);
        return (size_t)(matches_put_sequences(end, finder->sequences, count, space->codes, last_offset) - out);
    }
    if (kept < MATCHES_SAMPLED_FROM)
        histogram(finder->literals, kept, counts);
    else
        histogram_settle(finder->literals, kept, 0, counts, histogram_add_sample(finder->literals, kept, 0, 0, counts));
    int symbols = 0;
    for (int s = 0; s < 256; s++)
        symbols += counts[s] != 0;
    size_t coded = 0;
    if (symbols > 1 && kept > 32)
        coded = huffman_put_literals(finder->literals, kept, counts, out);
    uint8_t *to = coded ? out + coded : matches_put_plain_literals(out, finder->literals, kept, symbols <= 1);
    to = matches_put_sequences(to, finder->sequences, count, space->codes, last_offset);
    return (size_t)(to - out);
}

#endif
