/* Writing Huffman-coded streams (RFC 8878 section 4.2.2), two side by side, because each waits for itself. */
#ifndef QATQFS_HUFFMAN_STREAMS_H
#define QATQFS_HUFFMAN_STREAMS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "cpu.h"
#include "huffman_table.h"

/* Of eight codes that fit a word, beside 7 waiting bits and the length of the last code. */
#define HUFFMAN_EIGHT_BITS 51

/* A stream being written, from its last symbol to its first. */
typedef struct {
    const uint8_t *start, *end; /* of the symbols that are left */
    uint8_t *out;
    uint64_t bits, used; /* bits that do not fill a byte yet, and how many */
} huffman_stream;

/* Bits wait at the top of a word. A code has its length in its low bits, where a shift instruction reads it without
 * masking. These low bits stay in the word, below the waiting bits, as long as those are not too many. While codes are
 * put, the low byte of `used` says how many bits wait. */

ALWAYS_INLINE void huffman_put_code(huffman_stream *to, uint64_t code)
{
    to->bits = to->bits >> (code & 63) | code;
    to->used += code;
}

/* Write the waiting bits. Those of an incomplete last byte keep waiting. */
ALWAYS_INLINE void huffman_flush(huffman_stream *to)
{
    to->used &= 0xff;
    uint64_t word = to->bits >> (64 - to->used);
    memcpy(to->out, &word, 8);
    to->out += to->used >> 3;
    to->used &= 7;
}

/* Put five symbols: 7 + 5 * 11 bits fit a word if the last code comes without its length. */
ALWAYS_INLINE void huffman_put_five(huffman_stream *to, const uint64_t *codes)
{
    for (int k = 1; k <= 4; k++)
        huffman_put_code(to, codes[to->end[-k]]);
    uint64_t code = codes[to->end[-5]];
    to->bits = to->bits >> (code & 63) | (code & ~(uint64_t)0xff);
    to->used += code;
    to->end -= 5;
    huffman_flush(to);
}

ALWAYS_INLINE uint64_t huffman_pair(const uint64_t *pairs, const uint8_t *symbols)
{
    uint16_t both;
    memcpy(&both, symbols, 2);
    return pairs[both];
}

/* Put four symbols, in codes of two: 7 + 4 * 11 bits, and the length of the last code below them. */
ALWAYS_INLINE void huffman_put_two_pairs(huffman_stream *to, const uint64_t *pairs)
{
    huffman_put_code(to, huffman_pair(pairs, to->end - 2));
    huffman_put_code(to, huffman_pair(pairs, to->end - 4));
    to->end -= 4;
    huffman_flush(to);
}

/* Put eight symbols, at once if their codes fit a word. */
ALWAYS_INLINE void huffman_put_four_pairs(huffman_stream *to, const uint64_t *pairs)
{
    const uint64_t a = huffman_pair(pairs, to->end - 2), b = huffman_pair(pairs, to->end - 4);
    const uint64_t c = huffman_pair(pairs, to->end - 6), d = huffman_pair(pairs, to->end - 8);
    if (__builtin_expect(((a + b + c + d) & 0xff) > HUFFMAN_EIGHT_BITS, 0)) {
        huffman_put_two_pairs(to, pairs);
        huffman_put_two_pairs(to, pairs);
        return;
    }
    huffman_put_code(to, a);
    huffman_put_code(to, b);
    huffman_put_code(to, c);
    huffman_put_code(to, d);
    to->end -= 8;
    huffman_flush(to);
}

/* Write what is left, and close the stream. Returns its end. */
static uint8_t *huffman_end_stream(huffman_stream *to, const uint64_t *codes)
{
    bit_writer rest = {to->bits, (int)to->used, to->out};
    while (to->end > to->start) {
        uint64_t code = codes[*--to->end];
        int length = (int)(code & 63);
        bits_put(&rest, code >> (64 - length), length);
    }
    bits_close(&rest);
    return rest.at;
}

/* Write most of two streams, which have at least `symbols` symbols each. */
ALWAYS_INLINE void huffman_streams_body(huffman_stream two[2], size_t symbols, const huffman_table *table,
                                        const uint64_t *pairs)
{
    huffman_stream a = two[0], b = two[1];
    if (pairs != NULL && table->short_codes)
        for (size_t rounds = symbols / 8; rounds > 0; rounds--) {
            huffman_put_four_pairs(&a, pairs);
            huffman_put_four_pairs(&b, pairs);
        }
    else if (pairs != NULL)
        for (size_t rounds = symbols / 4; rounds > 0; rounds--) {
            huffman_put_two_pairs(&a, pairs);
            huffman_put_two_pairs(&b, pairs);
        }
    else
        for (size_t rounds = symbols / 5; rounds > 0; rounds--) {
            huffman_put_five(&a, table->codes);
            huffman_put_five(&b, table->codes);
        }
    two[0] = a;
    two[1] = b;
    for (int i = 0; i < 2; i++)
        two[i].bits = two[i].used ? two[i].bits >> (64 - two[i].used) : 0;
}

#define HUFFMAN_KERNEL(SET, TARGET)                                                                                    \
    TARGET static void huffman_streams_##SET(huffman_stream two[2], size_t symbols, const huffman_table *table,        \
                                             const uint64_t *pairs)                                                    \
    {                                                                                                                  \
        huffman_streams_body(two, symbols, table, pairs);                                                              \
    }

FOR_EACH_INSTRUCTION_SET(HUFFMAN_KERNEL)

#define HUFFMAN_KERNEL_ROW(SET, TARGET) huffman_streams_##SET,
static void (*const huffman_streams_kernels[])(huffman_stream[2], size_t, const huffman_table *,
                                               const uint64_t *) = {FOR_EACH_INSTRUCTION_SET(HUFFMAN_KERNEL_ROW)};

/* Make a code for each pair of symbols: first the code of the later symbol, then that of the earlier. The index is the
 * two bytes as they are in memory. Of the half megabyte, a few dozen symbols use only what fits a cache. */
static void huffman_pair_codes(const uint64_t *codes, uint64_t *pairs)
{
    uint8_t symbols[256];
    int count = 0;
    for (int s = 0; s < 256; s++)
        if (codes[s])
            symbols[count++] = (uint8_t)s;
    for (int i = 0; i < count; i++) {
        const uint64_t later = codes[symbols[i]] & ~(uint64_t)63, later_length = codes[symbols[i]] & 63;
        for (int k = 0; k < count; k++) {
            const uint64_t earlier = codes[symbols[k]], length = earlier & 63;
            pairs[symbols[i] << 8 | symbols[k]] = (earlier & ~(uint64_t)63) | later >> length | (length + later_length);
        }
    }
}

#endif
