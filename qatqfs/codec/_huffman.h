/* Huffman-coded literals of a zstd block (RFC 8878 sections 4.1 and 4.2): code lengths, their description, streams.
 *
 * libzstd codes literals too, but offers no way to do only that: it looks for matches first, and in a plane near
 * noise that takes longer than the coding. Here a histogram that is at hand anyway becomes a table, and two
 * streams at a time are written side by side, for each waits for itself.
 */
#ifndef QATQFS_HUFFMAN_H
#define QATQFS_HUFFMAN_H

#include <stdint.h>
#include <string.h>

#include "_fse.h"

#define HUFFMAN_MAX_BITS 11      /* of a code, RFC 8878 section 4.2.1 */
#define HUFFMAN_WEIGHTS_LOG 6    /* of the FSE table of weights, the largest that is legal */
#define HUFFMAN_MAX_TREE 128     /* bytes of a description, its length field included */
#define HUFFMAN_STREAM_ROOM (32 * 1024 * HUFFMAN_MAX_BITS / 8 + 16)

typedef struct {
    uint64_t codes[256]; /* code in the highest bits, its length in the lowest */
    uint8_t tree[HUFFMAN_MAX_TREE];
    int tree_size;
} huffman_table;

/* ---- code lengths: package-merge, which is optimal under a limit of bits -------------------------------- */

/* Sets lengths[s] for each symbol with a count; there must be at least two. */
static void huffman_lengths(const uint32_t *counts, uint8_t *lengths)
{
    uint8_t symbols[256];
    uint32_t leaves[256], items[2][512];
    uint8_t is_leaf[HUFFMAN_MAX_BITS][512];
    int n = 0;
    for (int s = 0; s < 256; s++) {
        lengths[s] = 0;
        if (counts[s])
            symbols[n++] = (uint8_t)s;
    }
    for (int i = 1; i < n; i++) { /* insertion sort by count: few symbols, or nearly all of them alike */
        uint8_t symbol = symbols[i];
        int at = i;
        for (; at > 0 && counts[symbols[at - 1]] > counts[symbol]; at--)
            symbols[at] = symbols[at - 1];
        symbols[at] = symbol;
    }
    for (int i = 0; i < n; i++)
        leaves[i] = counts[symbols[i]];
    int size = n;
    memcpy(items[0], leaves, (size_t)n * sizeof *leaves);
    memset(is_leaf[0], 1, (size_t)n);
    for (int level = 1; level < HUFFMAN_MAX_BITS; level++) {
        const uint32_t *from = items[(level - 1) & 1];
        uint32_t *to = items[level & 1];
        int leaf = 0, package = 0, packages = size / 2, made = 0;
        while (leaf < n || package < packages) {
            uint32_t pair = package < packages ? from[2 * package] + from[2 * package + 1] : 0;
            int take_leaf = leaf < n && (package == packages || leaves[leaf] <= pair);
            to[made] = take_leaf ? leaves[leaf++] : pair;
            package += !take_leaf;
            is_leaf[level][made++] = (uint8_t)take_leaf;
        }
        size = made;
    }
    int chosen = 2 * n - 2;
    for (int level = HUFFMAN_MAX_BITS - 1; level >= 0 && chosen > 0; level--) {
        int leaf = 0;
        for (int i = 0; i < chosen; i++)
            leaf += is_leaf[level][i];
        for (int i = 0; i < leaf; i++)
            lengths[symbols[i]]++;
        chosen = 2 * (chosen - leaf);
    }
}

/* ---- the description of a table: weights, coded with FSE (RFC 8878 section 4.2.1) ------------------------ */

/* Write the description of `count` weights (the last symbol's is implied); returns its bytes, 0 if it has none. */
static int huffman_put_tree(const uint8_t *weights, int count, uint8_t *tree)
{
    uint32_t counts[HUFFMAN_MAX_BITS + 1] = {0}, most = 0;
    int scaled[HUFFMAN_MAX_BITS + 1];
    for (int i = 0; i < count; i++)
        counts[weights[i]]++;
    for (int w = 0; w <= HUFFMAN_MAX_BITS; w++)
        most = counts[w] > most ? counts[w] : most;
    if (count > 2 && most < (uint32_t)count) {
        uint8_t room[512];
        bit_writer to = {0, 0, room};
        fse_table table;
        fse_normalize(counts, HUFFMAN_MAX_BITS + 1, (uint32_t)count, HUFFMAN_WEIGHTS_LOG, scaled);
        fse_put_counts(&to, scaled, HUFFMAN_WEIGHTS_LOG);
        fse_build(&table, scaled, HUFFMAN_MAX_BITS + 1, HUFFMAN_WEIGHTS_LOG);
        int at = count; /* two states in turn; the first weight belongs to state 0 */
        uint32_t state[2];
        at--;
        state[at & 1] = fse_start(&table, weights[at]);
        at--;
        state[at & 1] = fse_start(&table, weights[at]);
        while (at > 0) {
            at--;
            state[at & 1] = fse_put(&to, &table, state[at & 1], weights[at]);
        }
        fse_finish(&to, &table, state[1]);
        fse_finish(&to, &table, state[0]);
        bits_close(&to);
        int coded = (int)(to.at - room);
        if (coded < HUFFMAN_MAX_TREE && (count > 128 || coded < (count + 1) / 2)) {
            tree[0] = (uint8_t)coded;
            memcpy(tree + 1, room, (size_t)coded);
            return 1 + coded;
        }
    }
    if (count > 128)
        return 0;
    tree[0] = (uint8_t)(127 + count);
    for (int i = 0; i < count; i += 2)
        tree[1 + i / 2] = (uint8_t)(weights[i] << 4 | (i + 1 < count ? weights[i + 1] : 0));
    return 1 + (count + 1) / 2;
}

/* Make the table for a histogram of at least two symbols; 0 if its description is not possible. */
static int huffman_build(const uint32_t *counts, huffman_table *table)
{
    uint8_t lengths[256], weights[256];
    int bits = 0, last = 0, of_length[HUFFMAN_MAX_BITS + 2] = {0};
    uint32_t next[HUFFMAN_MAX_BITS + 2] = {0};
    huffman_lengths(counts, lengths);
    for (int s = 0; s < 256; s++) {
        if (lengths[s]) {
            last = s;
            of_length[lengths[s]]++;
            bits = lengths[s] > bits ? lengths[s] : bits;
        }
    }
    for (int length = bits, code = 0; length > 0; length--) { /* the longest codes come first */
        next[length] = (uint32_t)code;
        code = (code + of_length[length]) >> 1;
    }
    for (int s = 0; s < 256; s++) {
        weights[s] = lengths[s] ? (uint8_t)(bits + 1 - lengths[s]) : 0;
        table->codes[s] = lengths[s] ? (uint64_t)next[lengths[s]]++ << (64 - lengths[s]) | lengths[s] : 0;
    }
    table->tree_size = huffman_put_tree(weights, last, table->tree);
    return table->tree_size != 0;
}

/* ---- streams --------------------------------------------------------------------------------------------- */

/* Write up to four streams, each from its last symbol to its first; sizes[i] is what stream i takes at to[i].
 *
 * The bits wait at the top of a word. A code has its length in its low bits, where a shift takes it from without
 * masking; what that leaves at the bottom of the word stays below the bits, which are 7 + 5 * 11 at most, if
 * the last of five codes comes without it. */
static void huffman_streams(const uint8_t *const *from, const size_t *counts, int streams, const uint64_t *codes,
                            uint8_t *const *to, size_t *sizes)
{
    size_t shortest = counts[streams - 1];
    for (int pair = 0; pair < streams; pair += 2) {
        int width = streams - pair < 2 ? 1 : 2;
        const uint8_t *end[2];
        uint8_t *out[2];
        uint64_t bits[2] = {0, 0}, used[2] = {0, 0};
        for (int i = 0; i < width; i++) {
            end[i] = from[pair + i] + counts[pair + i];
            out[i] = to[pair + i];
        }
        for (size_t rounds = width == 2 ? shortest / 5 : 0; rounds > 0; rounds--) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
#pragma GCC unroll 4
                for (int k = 1; k <= 4; k++) {
                    uint64_t code = codes[end[i][-k]];
                    bits[i] = bits[i] >> (code & 63) | code;
                    used[i] += code;
                }
                uint64_t code = codes[end[i][-5]];
                bits[i] = bits[i] >> (code & 63) | (code & ~(uint64_t)0xff);
                used[i] = (used[i] + code) & 0xff;
                end[i] -= 5;
                uint64_t word = bits[i] >> (64 - used[i]);
                memcpy(out[i], &word, 8);
                out[i] += used[i] >> 3;
                used[i] &= 7;
            }
        }
        for (int i = 0; i < width; i++) {
            bit_writer rest = {used[i] ? bits[i] >> (64 - used[i]) : 0, (int)used[i], out[i]};
            while (end[i] > from[pair + i]) {
                uint64_t code = codes[*--end[i]];
                int length = (int)(code & 63);
                bits_put(&rest, code >> (64 - length), length);
            }
            bits_close(&rest);
            sizes[pair + i] = (size_t)(rest.at - to[pair + i]);
        }
    }
}

/* Write a section of compressed literals (RFC 8878 section 3.1.1.3.1); returns its bytes, 0 if it is no smaller. */
static size_t huffman_put_literals(const uint8_t *data, size_t size, const uint32_t *counts, uint8_t *out, size_t room)
{
    static _Thread_local uint8_t streams_room[4][HUFFMAN_STREAM_ROOM];
    huffman_table table;
    if (!huffman_build(counts, &table))
        return 0;
    int streams = size < 256 ? 1 : 4;
    const uint8_t *from[4];
    uint8_t *to[4];
    size_t parts[4], sizes[4], part = (size + 3) / 4, body = (size_t)table.tree_size + (streams == 4 ? 6 : 0);
    for (int i = 0; i < streams; i++) {
        from[i] = data + (size_t)i * part;
        parts[i] = streams == 1 ? size : i < 3 ? part : size - 3 * part;
        to[i] = streams_room[i];
    }
    huffman_streams(from, parts, streams, table.codes, to, sizes);
    for (int i = 0; i < streams; i++)
        body += sizes[i];
    size_t header = size < 1024 && body < 1024 ? 3 : size < 16384 && body < 16384 ? 4 : 5;
    if (header + body >= size || header + body > room)
        return 0;
    int size_bits = header == 3 ? 10 : header == 4 ? 14 : 18;
    uint64_t format = streams == 1 ? 0 : header == 3 ? 1 : header - 2;
    bit_writer fields = {0, 0, out};
    bits_put(&fields, 2 | format << 2 | (uint64_t)size << 4 | (uint64_t)body << (4 + size_bits), 4 + 2 * size_bits);
    memcpy(fields.at, table.tree, (size_t)table.tree_size);
    fields.at += table.tree_size;
    for (int i = 0; streams == 4 && i < 3; i++) {
        *fields.at++ = (uint8_t)sizes[i];
        *fields.at++ = (uint8_t)(sizes[i] >> 8);
    }
    for (int i = 0; i < streams; i++) {
        memcpy(fields.at, to[i], sizes[i]);
        fields.at += sizes[i];
    }
    return header + body;
}
#endif
