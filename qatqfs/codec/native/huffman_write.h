/* Writing the Huffman-coded literals of a zstd block (RFC 8878 section 3.1.1.3.1).
 *
 * libzstd's stable calls always look for matches first, and in a plane near noise that takes longer than the coding.
 * ZSTD_compressSequences codes literals alone if it is given no matches, but it counts them again, makes its own
 * table, and is only declared for static linking. Here the histogram that chose the block becomes the table.
 *
 * Streams are written in vectors with AVX-512 VBMI2 (huffman_streams_vbmi.h), otherwise two side by side.
 */
#ifndef QATQFS_HUFFMAN_WRITE_H
#define QATQFS_HUFFMAN_WRITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "cpu.h"
#include "huffman_streams.h"
#include "huffman_streams_vbmi.h"
#include "huffman_table.h"

#define HUFFMAN_PAIR_COST 4       /* a table of pairs pays with so many symbols for each of its entries */
#define HUFFMAN_VECTORS_FROM 2048 /* bytes of literals, below which loading the tables does not pay */
#define HUFFMAN_STREAM_ROOM (32 * 1024 * HUFFMAN_MAX_BITS / 8 + 16)

/* Write streams of counts[i] symbols at from[i] one after another in vectors, and set the size of each. Returns the
 * end, or NULL if that is impossible or not faster. */
static uint8_t *huffman_streams_in_vectors(const uint8_t *const *from, const size_t *counts, int streams,
                                           const huffman_table *table, uint8_t *out, size_t *sizes)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (instruction_set < SET_AVX512_GFNI || (size_t)streams * counts[0] < HUFFMAN_VECTORS_FROM)
        return NULL;
    for (int i = 0; i < streams; i++) {
        huffman_stream stream = {from[i], from[i] + counts[i], out, 0, 0};
        huffman_put_groups(&stream, table);
        uint8_t *end = huffman_end_stream(&stream, table->codes);
        sizes[i] = (size_t)(end - out);
        out = end;
    }
    return out;
#else
    (void)from, (void)counts, (void)streams, (void)table, (void)out, (void)sizes;
    return NULL;
#endif
}

/* Write one or four streams of counts[i] symbols at from[i] one after another, and set the size of each. Returns the
 * end. */
static uint8_t *huffman_streams(const uint8_t *const *from, const size_t *counts, int streams,
                                const huffman_table *table, uint8_t *out, size_t *sizes)
{
    static _Thread_local uint64_t pair_codes[1 << 16];
    static _Thread_local uint8_t second[HUFFMAN_STREAM_ROOM];
    const size_t shortest = counts[streams - 1], symbols = (size_t)table->symbols;
    const uint64_t *pairs = NULL;
    uint8_t *const end = huffman_streams_in_vectors(from, counts, streams, table, out, sizes);
    if (end != NULL)
        return end;
    if (streams == 4 && symbols * symbols * HUFFMAN_PAIR_COST <= shortest) {
        huffman_pair_codes(table->codes, pair_codes);
        pairs = pair_codes;
    }
    for (int first = 0; first < streams; first += 2) {
        const int width = streams - first < 2 ? 1 : 2;
        huffman_stream two[2];
        for (int i = 0; i < width; i++)
            two[i] = (huffman_stream){from[first + i], from[first + i] + counts[first + i], i ? second : out, 0, 0};
        if (width == 2)
            huffman_streams_kernels[instruction_set](two, shortest, table, pairs);
        for (int i = 0; i < width; i++) {
            uint8_t *const start = i ? second : out;
            sizes[first + i] = (size_t)(huffman_end_stream(&two[i], table->codes) - start);
        }
        out += sizes[first];
        if (width == 2) {
            memcpy(out, second, sizes[first + 1]);
            out += sizes[first + 1];
        }
    }
    return out;
}

/* Bytes of room for a section of `size` literals while it is written. It may turn out larger than the literals, and
 * vectors write up to 64 bytes after the end. */
static size_t huffman_room(size_t size)
{
    return size * HUFFMAN_MAX_BITS / 8 + HUFFMAN_MAX_TREE + 128;
}

/* Write a section of compressed literals to `out`, which has huffman_room(size) bytes. Returns its bytes, 0 if it is
 * not smaller than the literals. */
static size_t huffman_put_literals(const uint8_t *data, size_t size, const uint32_t *counts, uint8_t *out)
{
    huffman_table table;
    if (!huffman_build(counts, &table))
        return 0;
    const int streams = size < 256 ? 1 : 4;
    const size_t header = size < 1024 ? 3 : size < 16384 ? 4 : 5; /* for a body smaller than size */
    const size_t part = (size + 3) / 4;
    const int size_bits = header == 3 ? 10 : header == 4 ? 14 : 18;
    const uint8_t *from[4];
    size_t parts[4], sizes[4];
    for (int i = 0; i < streams; i++) {
        from[i] = data + (size_t)i * part;
        parts[i] = streams == 1 ? size : i < 3 ? part : size - 3 * part;
    }
    uint8_t *const tree = out + header, *const table_of_sizes = tree + table.tree_size;
    memcpy(tree, table.tree, (size_t)table.tree_size);
    uint8_t *const end = huffman_streams(from, parts, streams, &table, table_of_sizes + (streams == 4 ? 6 : 0), sizes);
    const size_t body = (size_t)(end - tree);
    if (header + body >= size)
        return 0;
    const uint64_t format = streams == 1 ? 0 : header == 3 ? 1 : header - 2;
    bit_writer fields = {0, 0, out};
    bits_put(&fields, 2 | format << 2 | (uint64_t)size << 4 | (uint64_t)body << (4 + size_bits), 4 + 2 * size_bits);
    for (int i = 0; streams == 4 && i < 3; i++) {
        table_of_sizes[2 * i] = (uint8_t)sizes[i];
        table_of_sizes[2 * i + 1] = (uint8_t)(sizes[i] >> 8);
    }
    return header + body;
}

#endif
