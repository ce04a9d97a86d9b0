/* Decoding of zstd frames whose blocks are stored, one repeated byte, or Huffman-coded literals without sequences.
 *
 * These are the frames that byte planes of tensors mostly are (plane_encode.h writes them). libzstd decodes them, too, but as
 * a library behind a library: each call takes and gives the interpreter's lock several times, which costs more than
 * the decoding where other threads want it, and a chunk that was encoded just now has to be decoded before it may
 * be trusted. Here a whole chunk is one call.
 *
 * Whatever is out of the ordinary (RFC 8878 allows much more) or wrong in any way is refused, and the caller goes to
 * libzstd, which decides what it is. So a frame decoded here is one that libzstd decodes to the same bytes. Nothing is
 * trusted: every length is compared with what is there before it is used.
 */
#ifndef QATQFS_FRAME_READ_H
#define QATQFS_FRAME_READ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "frame_walk.h"
#include "huffman_table.h"

#define LITERALS_TABLE (1 << HUFFMAN_MAX_BITS)
#define LITERALS_WEIGHTS 255  /* symbols with a weight that is written, at most */
#define LITERALS_FSE_STATES (1 << HUFFMAN_WEIGHTS_LOG)
#define LITERALS_LOOKUPS 5    /* of at most 11 bits, in a word that has 57 or more */
#define LITERALS_QUADS_FROM (16 * 1024) /* symbols of a block for which a table of quads pays, if codes are short */

typedef struct {
    uint32_t pairs[LITERALS_TABLE]; /* one or two symbols, their bits together in bits 16 to 23, their number above */
    uint16_t singles[LITERALS_TABLE]; /* a symbol, and its bits above it */
    uint64_t quads[LITERALS_TABLE];   /* one to four symbols, their bits together in bits 32 to 39, their number above */
    int log;                          /* bits of an index */
    int has_quads;
} literals_table;

/* ---- weights of a Huffman tree (RFC 8878 section 4.2.1) -------------------------------------------------- */

/* Bits of a small buffer, which has eight bytes more than it holds. */
static inline uint32_t literals_bits(const uint8_t *padded, size_t position, int count)
{
    uint64_t word;
    memcpy(&word, padded + position / 8, 8);
    return (uint32_t)(word >> (position & 7)) & ((1u << count) - 1);
}

typedef struct {
    uint8_t symbol, bits, base;
} literals_state;

/* Read the description of an FSE table (RFC 8878 section 4.1.1); returns its bytes, 0 if there is something wrong. */
static size_t literals_read_fse(const uint8_t *padded, size_t size, literals_state *states, int *log_out)
{
    enum { SYMBOLS = HUFFMAN_MAX_BITS + 2 }; /* weights go up to the largest number of bits */
    int counts[SYMBOLS] = {0}, symbol = 0;
    const int log = (int)literals_bits(padded, 0, 4) + 5, states_count = 1 << log;
    size_t at = 4;
    if (log > HUFFMAN_WEIGHTS_LOG)
        return 0;
    int left = states_count + 1, threshold = states_count, width = log + 1;
    while (left > 1) {
        if (symbol >= SYMBOLS || at > 8 * size)
            return 0;
        const int spare = 2 * threshold - 1 - left;
        int value = (int)literals_bits(padded, at, width);
        if ((value & (threshold - 1)) < spare) {
            value &= threshold - 1;
            at += (size_t)width - 1;
        } else {
            if (value >= threshold)
                value -= spare;
            at += (size_t)width;
        }
        const int count = value - 1; /* -1: less than one state's worth, and gets one */
        left -= count < 0 ? 1 : count;
        counts[symbol++] = count;
        if (count == 0)
            for (uint32_t more = 3; more == 3;) {
                if (at > 8 * size)
                    return 0;
                more = literals_bits(padded, at, 2);
                at += 2;
                symbol += (int)more;
                if (symbol > SYMBOLS)
                    return 0;
            }
        for (; left < threshold && threshold > 1; threshold >>= 1)
            width--;
    }
    if (left != 1 || (at + 7) / 8 > size)
        return 0;
    int high = states_count - 1, position = 0, next[SYMBOLS];
    const int step = (states_count >> 1) + (states_count >> 3) + 3;
    for (int s = 0; s < SYMBOLS; s++) {
        next[s] = counts[s] < 0 ? 1 : counts[s];
        if (counts[s] < 0)
            states[high--].symbol = (uint8_t)s;
    }
    for (int s = 0; s < SYMBOLS; s++)
        for (int i = 0; i < counts[s]; i++) {
            states[position].symbol = (uint8_t)s;
            do
                position = (position + step) & (states_count - 1);
            while (position > high);
        }
    if (position != 0)
        return 0;
    for (int i = 0; i < states_count; i++) {
        const int number = next[states[i].symbol]++;
        states[i].bits = (uint8_t)(log - (31 - __builtin_clz((unsigned)number)));
        states[i].base = (uint8_t)((number << states[i].bits) - states_count);
    }
    *log_out = log;
    return (at + 7) / 8;
}

/* Read weights that are coded with FSE, by two states in turn, until the bits run out; returns how many, 0 if wrong. */
static int literals_read_coded_weights(const uint8_t *data, size_t size, uint8_t *weights)
{
    uint8_t padded[128 + 8] = {0};
    literals_state states[LITERALS_FSE_STATES];
    int log, count = 0;
    if (size < 2 || size > 127)
        return 0;
    memcpy(padded, data, size);
    const size_t described = literals_read_fse(padded, size, states, &log);
    if (described == 0 || described >= size || padded[size - 1] == 0)
        return 0;
    long left = (long)(8 * (size - described)) - 1 - __builtin_clz(padded[size - 1]) + 24; /* below the closing one */
    const size_t first = 8 * described;
    uint32_t state[2];
    for (int i = 0; i < 2; i++) {
        left -= log;
        if (left < 0)
            return 0;
        state[i] = literals_bits(padded, first + (size_t)left, log);
    }
    for (int turn = 0; count < LITERALS_WEIGHTS; turn ^= 1) {
        const literals_state now = states[state[turn]];
        weights[count++] = now.symbol;
        left -= now.bits;
        if (left < 0) { /* it has run out: the other state is the last */
            if (count == LITERALS_WEIGHTS)
                return 0;
            weights[count++] = states[state[turn ^ 1]].symbol;
            return count;
        }
        state[turn] = now.base + literals_bits(padded, first + (size_t)left, now.bits);
    }
    return 0;
}

/* Read a tree and make the tables of it; returns the bytes of its description, 0 if it is wrong or unusual. */
static size_t literals_read_tree(const uint8_t *data, size_t size, literals_table *table)
{
    uint8_t weights[LITERALS_WEIGHTS + 1];
    uint32_t of_weight[HUFFMAN_MAX_BITS + 2] = {0}, start[HUFFMAN_MAX_BITS + 2], total = 0;
    size_t described;
    int count;
    if (size < 2)
        return 0;
    if (data[0] < 128) {
        described = 1 + (size_t)data[0];
        if (described > size)
            return 0;
        count = literals_read_coded_weights(data + 1, described - 1, weights);
    } else {
        count = data[0] - 127;
        described = 1 + ((size_t)count + 1) / 2;
        if (described > size)
            return 0;
        for (int i = 0; i < count; i++)
            weights[i] = i & 1 ? data[1 + i / 2] & 15 : data[1 + i / 2] >> 4;
    }
    for (int i = 0; i < count; i++) {
        if (weights[i] > HUFFMAN_MAX_BITS)
            return 0;
        total += weights[i] ? 1u << (weights[i] - 1) : 0;
    }
    if (total == 0)
        return 0;
    const int log = 32 - __builtin_clz(total);
    const uint32_t rest = (1u << log) - total; /* the last symbol's share, which has to be a power of two */
    if (log > HUFFMAN_MAX_BITS || (rest & (rest - 1)) != 0)
        return 0;
    weights[count++] = (uint8_t)(32 - __builtin_clz(rest));
    for (int i = 0; i < count; i++)
        of_weight[weights[i]]++;
    if (of_weight[1] < 2 || of_weight[1] & 1)
        return 0;
    for (uint32_t w = 1, at = 0; w <= (uint32_t)log; at += of_weight[w] << (w - 1), w++)
        start[w] = at; /* the longest codes come first */
    for (int s = 0; s < count; s++) {
        const uint8_t w = weights[s];
        if (w == 0)
            continue;
        const uint16_t entry = (uint16_t)(s | (log + 1 - w) << 8);
        for (uint32_t i = 0; i < 1u << (w - 1); i++)
            table->singles[start[w]++] = entry;
    }
    for (uint32_t i = 0; i < 1u << log; i++) {
        const uint32_t one = table->singles[i], bits = one >> 8;
        const uint32_t two = table->singles[i << bits & ((1u << log) - 1)], both = bits + (two >> 8);
        table->pairs[i] = both <= (uint32_t)log ? (one & 0xff) | (two & 0xff) << 8 | both << 16 | 2u << 24
                                                : (one & 0xff) | bits << 16 | 1u << 24;
    }
    table->log = log;
    return described;
}

/* Make the table of quads for so many symbols if their codes are so short that most pairs leave room for more. An index
 * is as likely as its codes are long, so that the mean over all of them is that over a stream. */
static void literals_make_quads(literals_table *table, size_t symbols)
{
    const uint32_t count = 1u << table->log, log = (uint32_t)table->log;
    uint32_t paired = 0;
    for (uint32_t i = 0; i < count; i++)
        paired += table->pairs[i] >> 24;
    table->has_quads = symbols >= LITERALS_QUADS_FROM && paired >= count / 8 * 15;
    for (uint32_t i = 0; table->has_quads && i < count; i++) {
        const uint32_t first = table->pairs[i], bits = first >> 16 & 0xff, number = first >> 24;
        const uint32_t next = i << bits & (count - 1), single = table->singles[next];
        const uint32_t pair = table->pairs[next], pair_bits = pair >> 16 & 0xff;
        const uint32_t alone = bits + (single >> 8) <= log ? (single & 0xff) | (single >> 8) << 16 | 1u << 24 : 0;
        const uint32_t second = bits + pair_bits <= log ? pair : alone;
        table->quads[i] = (first & 0xffff) | (uint64_t)(second & 0xffff) << 8 * number |
                          (uint64_t)(bits + (second >> 16 & 0xff)) << 32 | (uint64_t)(number + (second >> 24)) << 40;
    }
}

/* ---- streams (RFC 8878 section 4.2.2), which are read from their end ------------------------------------- */

typedef struct {
    const uint8_t *start, *at; /* eight bytes at `at` are the next to be looked at */
    uint64_t bits;             /* those of them that are left at the top, then a one, then zeros */
    uint8_t *out, *end;
} literals_stream;

/* Begin with a stream; 0 if it has no end or is too short for words. */
static int literals_begin(literals_stream *stream, const uint8_t *data, size_t size, uint8_t *out, size_t symbols)
{
    if (size < 8 || data[size - 1] == 0)
        return 0;
    stream->start = data;
    stream->at = data + size - 8;
    uint64_t word;
    memcpy(&word, stream->at, 8);
    stream->bits = (word | 1) << (__builtin_clzll(word) + 1);
    stream->out = out;
    stream->end = out + symbols;
    return 1;
}

/* Go back by the whole bytes that were used up; there have to be as many before. */
ALWAYS_INLINE void literals_refill(literals_stream *stream)
{
    const int used = __builtin_ctzll(stream->bits);
    uint64_t word;
    stream->at -= used >> 3;
    memcpy(&word, stream->at, 8);
    stream->bits = (word | 1) << (used & 7);
}

ALWAYS_INLINE void literals_lookup(literals_stream *stream, const literals_table *table, int shift, int quads)
{
    if (quads) {
        const uint64_t entry = table->quads[stream->bits >> shift];
        const uint32_t symbols = (uint32_t)entry;
        memcpy(stream->out, &symbols, 4);
        stream->bits <<= entry >> 32 & 63;
        stream->out += entry >> 40;
    } else {
        const uint32_t entry = table->pairs[stream->bits >> shift];
        const uint16_t symbols = (uint16_t)entry;
        memcpy(stream->out, &symbols, 2);
        stream->bits <<= entry >> 16 & 63;
        stream->out += entry >> 24;
    }
}

/* How many rounds of lookups four streams last at least: in each they use up fewer than eight bytes. */
static size_t literals_rounds(const literals_stream four[4], int quads)
{
    size_t rounds = SIZE_MAX;
    for (int i = 0; i < 4; i++) {
        const size_t bytes = (size_t)(four[i].at - four[i].start) / 8;
        const size_t symbols = (size_t)(four[i].end - four[i].out) / (size_t)((quads ? 4 : 2) * LITERALS_LOOKUPS);
        rounds = bytes < rounds ? bytes : rounds;
        rounds = symbols < rounds ? symbols : rounds;
    }
    return rounds;
}

/* Decode most of four streams side by side. */
ALWAYS_INLINE void literals_streams_body(literals_stream four[4], const literals_table *table, const int quads)
{
    literals_stream a = four[0], b = four[1], c = four[2], d = four[3];
    const int shift = 64 - table->log;
    for (size_t rounds; (rounds = literals_rounds(four, quads)) > 0;) {
        for (; rounds > 0; rounds--) {
#pragma GCC unroll 5
            for (int k = 0; k < LITERALS_LOOKUPS; k++) {
                literals_lookup(&a, table, shift, quads);
                literals_lookup(&b, table, shift, quads);
                literals_lookup(&c, table, shift, quads);
                literals_lookup(&d, table, shift, quads);
            }
            literals_refill(&a);
            literals_refill(&b);
            literals_refill(&c);
            literals_refill(&d);
        }
        four[0] = a, four[1] = b, four[2] = c, four[3] = d;
    }
}

#define LITERALS_KERNEL(SET, TARGET)                                                                                   \
    TARGET static void literals_streams_##SET(literals_stream four[4], const literals_table *table)                    \
    {                                                                                                                  \
        if (table->has_quads)                                                                                          \
            literals_streams_body(four, table, 1);                                                                     \
        else                                                                                                           \
            literals_streams_body(four, table, 0);                                                                     \
    }

FOR_EACH_INSTRUCTION_SET(LITERALS_KERNEL)

#define LITERALS_KERNEL_ROW(SET, TARGET) literals_streams_##SET,
static void (*const literals_streams_kernels[])(literals_stream[4], const literals_table *) = {
    FOR_EACH_INSTRUCTION_SET(LITERALS_KERNEL_ROW)};

/* Decode `symbols` symbols from `left` bits at the front of a stream, and no bit less. */
static int literals_decode_rest(const uint8_t *data, size_t left, uint8_t *out, size_t symbols,
                                const literals_table *table)
{
    const size_t log = (size_t)table->log, mask = ((size_t)1 << log) - 1;
    for (; symbols > 0; symbols--) {
        /* the bits from left - log on; before the first one there are zeros */
        uint64_t word = 0;
        size_t low = left > log ? left - log : 0, from = low / 8, bytes = (left + 7) / 8 - from;
        for (size_t i = 0; i < bytes; i++)
            word |= (uint64_t)data[from + i] << 8 * i;
        word >>= low & 7;
        if (left < log)
            word <<= log - left;
        const uint32_t entry = table->singles[word & mask], bits = entry >> 8;
        if (bits > left)
            return 0;
        left -= bits;
        *out++ = (uint8_t)entry;
    }
    return left == 0;
}

/* Decode the literals of a block into `out`, exactly `size` of them; 0 if anything is wrong. */
static int literals_decode(const uint8_t *data, size_t length, int streams, uint8_t *out, size_t size,
                           literals_table *table)
{
    const size_t described = literals_read_tree(data, length, table);
    if (described == 0)
        return 0;
    data += described;
    length -= described;
    if (streams == 1) {
        if (length == 0 || data[length - 1] == 0)
            return 0;
        return literals_decode_rest(data, 8 * length - (size_t)(__builtin_clz(data[length - 1]) - 24) - 1, out, size,
                                    table);
    }
    literals_stream four[4];
    const size_t part = (size + 3) / 4;
    if (length < 6 || 3 * part > size)
        return 0;
    literals_make_quads(table, size);
    const uint8_t *at = data + 6;
    size_t rest = length - 6;
    for (int i = 0; i < 4; i++) {
        size_t taken = i < 3 ? (size_t)(data[2 * i] | data[2 * i + 1] << 8) : rest;
        if (taken > rest || !literals_begin(&four[i], at, taken, out + (size_t)i * part, i < 3 ? part : size - 3 * part))
            return 0;
        at += taken;
        rest -= taken;
    }
    literals_streams_kernels[instruction_set](four, table);
    for (int i = 0; i < 4; i++) {
        const literals_stream *s = &four[i];
        size_t left = 8 * (size_t)(s->at - s->start) + 64 - (size_t)__builtin_ctzll(s->bits);
        if (!literals_decode_rest(s->start, left, s->out, (size_t)(s->end - s->out), table))
            return 0;
    }
    return 1;
}

/* ---- frames ----------------------------------------------------------------------------------------------- */

/* Decode a compressed block that has literals alone; returns the bytes it made, 0 if it is anything else. */
static size_t literals_decode_block(const uint8_t *data, size_t length, uint8_t *out, size_t room,
                                    literals_table *table)
{
    if (length < 3 || (data[0] & 3) != 2) /* Huffman-coded, with a tree (RFC 8878 section 3.1.1.3.1.1) */
        return 0;
    const int format = data[0] >> 2 & 3, header = format < 2 ? 3 : format + 2, bits = format < 2 ? 10 : 4 * format + 6;
    if (length < (size_t)header + 1)
        return 0;
    const uint64_t fields = zstd_little_endian(data, header) >> 4;
    const size_t size = fields & ((1u << bits) - 1), coded = fields >> bits & ((1u << bits) - 1);
    if (size == 0 || size > room || size > ZSTD_BLOCK_MAX || coded != length - (size_t)header - 1 ||
        data[length - 1] != 0) /* a byte says that there are no sequences */
        return 0;
    return literals_decode(data + header, coded, format == 0 ? 1 : 4, out, size, table) ? size : 0;
}

/* Decode one frame into `out`; returns the bytes of the frame, 0 if it is anything but what is written here. */
static size_t literals_decode_frame(const uint8_t *data, size_t length, uint8_t *out, size_t room, size_t *made,
                                    literals_table *table)
{
    if (length < 6 || memcmp(data, "\x28\xb5\x2f\xfd", 4) != 0 || (data[4] & 0x3f) != 0x20 || data[4] >> 6 == 3)
        return 0; /* one segment, a size of 1, 2 or 4 bytes, no checksum, no dictionary */
    const int size_bytes = 1 << (data[4] >> 6);
    size_t at = 5 + (size_t)size_bytes, done = 0;
    if (length < at)
        return 0;
    const uint64_t size = zstd_little_endian(data + 5, size_bytes) + (size_bytes == 2 ? 256 : 0);
    if (size == 0 || size > room)
        return 0;
    for (int last = 0; !last;) {
        if (length - at < 3)
            return 0;
        const uint32_t header = (uint32_t)zstd_little_endian(data + at, 3), kind = header >> 1 & 3;
        const size_t block = header >> 3, left = (size_t)size - done;
        at += 3;
        last = header & 1;
        if (kind == 2) {
            if (block > length - at || block > ZSTD_BLOCK_MAX || block > size) /* the window is the content here */
                return 0;
            const size_t found = literals_decode_block(data + at, block, out + done, left, table);
            if (found == 0)
                return 0;
            at += block;
            done += found;
        } else {
            if (kind == 3 || block == 0 || block > left || block > ZSTD_BLOCK_MAX ||
                (kind == 0 ? block : 1) > length - at)
                return 0;
            if (kind == 0)
                memcpy(out + done, data + at, block);
            else
                memset(out + done, data[at], block);
            at += kind == 0 ? block : 1;
            done += block;
        }
    }
    *made = done;
    return done == size ? at : 0;
}

/* Decode frames that fill `data` exactly, and `out`, with skippable ones behind them; 0 if that is not what it is. */
static int literals_decode_frames(const uint8_t *data, size_t length, uint8_t *out, size_t size)
{
    literals_table table;
    size_t done = 0, at = 0;
    while (done < size) {
        size_t made = 0, taken = literals_decode_frame(data + at, length - at, out + done, size - done, &made, &table);
        if (taken == 0)
            return 0;
        at += taken;
        done += made;
    }
    while (at < length) {
        if (length - at < ZSTD_SKIPPABLE_HEADER || (data[at] & 0xf0) != 0x50 ||
            memcmp(data + at + 1, "\x2a\x4d\x18", 3) != 0)
            return 0;
        const uint64_t skipped = zstd_little_endian(data + at + 4, 4);
        at += ZSTD_SKIPPABLE_HEADER;
        if (skipped > length - at)
            return 0;
        at += (size_t)skipped;
    }
    return 1;
}

#endif
