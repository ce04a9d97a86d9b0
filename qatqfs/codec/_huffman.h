/* Huffman-coded literals of a zstd block (RFC 8878 sections 4.1 and 4.2): code lengths, their description, streams.
 *
 * libzstd codes literals too, but offers no way to do only that: it looks for matches first, and in a plane near
 * noise that takes longer than the coding. Here a histogram that is at hand anyway becomes a table. Streams are written
 * in vectors where the processor has what it takes (_huffman_vbmi.h), otherwise two at a time side by side, for each
 * waits for itself.
 */
#ifndef QATQFS_HUFFMAN_H
#define QATQFS_HUFFMAN_H

#include <stdint.h>
#include <string.h>

#include "_cpu.h"
#include "_fse.h"

#define HUFFMAN_MAX_BITS 11      /* of a code, RFC 8878 section 4.2.1 */
#define HUFFMAN_WEIGHTS_LOG 6    /* of the FSE table of weights, the largest that is legal */
#define HUFFMAN_MAX_TREE 128     /* bytes of a description, its length field included */
#define HUFFMAN_PAIR_COST 4      /* symbols of a stream for each entry of a table of pairs to pay */
#define HUFFMAN_EIGHT_BITS 51    /* of eight codes: with 7 bits before them, and the length of the last one, a word */
#define HUFFMAN_SHORT_BITS 5     /* of a code on average, so that hardly ever eight have more */
#define HUFFMAN_STREAM_ROOM (32 * 1024 * HUFFMAN_MAX_BITS / 8 + 16)
#define HUFFMAN_VECTORS_FROM 2048 /* bytes of literals for which the tables of vectors pay */

typedef struct {
    uint64_t codes[256]; /* code in the highest bits, its length in the lowest */
    uint8_t low[256];    /* the low eight bits of a code */
    uint8_t high[256];   /* the others in three bits, and above them its length */
    int symbols;         /* that have a code */
    int short_codes;     /* of so few bits on average that eight hardly ever have too many for a word */
    uint8_t tree[HUFFMAN_MAX_TREE];
    int tree_size;
} huffman_table;

/* ---- code lengths ---------------------------------------------------------------------------------------- */

/* Sort symbols by count, those of equal counts as they are: six bits of the count at a time, for what comes before what
 * is unforeseeable, so that comparisons would cost more. Counts are below 2**18. */
static void huffman_sort(const uint32_t *counts, uint8_t *symbols, int n)
{
    uint8_t other[256];
    for (int shift = 0; shift < 18; shift += 6) {
        uint8_t *const from = shift == 6 ? other : symbols, *const to = shift == 6 ? symbols : other;
        uint16_t place[64] = {0};
        for (int i = 0; i < n; i++)
            place[counts[from[i]] >> shift & 63]++;
        for (int k = 0, before = 0; k < 64; k++) {
            int here = place[k];
            place[k] = (uint16_t)before;
            before += here;
        }
        for (int i = 0; i < n; i++)
            to[place[counts[from[i]] >> shift & 63]++] = from[i];
    }
    memcpy(symbols, other, (size_t)n);
}

/* Huffman's own algorithm: set the bits of n sorted weights, the smallest first, or return 0 if one gets too many. */
static int huffman_unlimited(const uint32_t *weights, int n, uint8_t *bits)
{
    uint32_t leaves[258], nodes[258]; /* both in ascending order, with ends that are never taken */
    uint16_t parents[512];            /* of leaves, then of nodes */
    uint8_t depths[256];              /* of nodes */
    memcpy(leaves, weights, (size_t)n * sizeof *leaves);
    leaves[n] = leaves[n + 1] = UINT32_MAX;
    memset(nodes, 0xff, ((size_t)n + 1) * sizeof *nodes);
    for (int made = 0, leaf = 0, node = 0; made < n - 1; made++) {
        uint32_t sum = 0;
        for (int k = 0; k < 2; k++) { /* without a branch, for which is smaller is unforeseeable */
            const uint32_t first = leaves[leaf], second = nodes[node];
            const int takes_leaf = first <= second;
            parents[takes_leaf ? leaf : 256 + node] = (uint16_t)made;
            sum += takes_leaf ? first : second;
            leaf += takes_leaf;
            node += !takes_leaf;
        }
        nodes[made] = sum;
    }
    depths[n - 2] = 0;
    for (int i = n - 3; i >= 0; i--)
        depths[i] = (uint8_t)(depths[parents[256 + i]] + 1);
    for (int i = 0; i < n; i++)
        bits[i] = (uint8_t)(depths[parents[i]] + 1);
    return bits[0] <= HUFFMAN_MAX_BITS;
}

/* Package-merge, which is optimal under a limit of bits: set those of n sorted weights. */
static void huffman_limited(const uint32_t *weights, int n, uint8_t *bits)
{
    uint32_t items[2][512];
    uint8_t is_leaf[HUFFMAN_MAX_BITS][512];
    int size = 0;
    for (int level = 0; level < HUFFMAN_MAX_BITS; level++) {
        const uint32_t *from = items[(level + 1) & 1];
        uint32_t *to = items[level & 1];
        int leaf = 0, package = 0, packages = size / 2, made = 0;
        while (leaf < n || package < packages) {
            uint32_t pair = package < packages ? from[2 * package] + from[2 * package + 1] : 0;
            int take_leaf = leaf < n && (package == packages || weights[leaf] <= pair);
            to[made] = take_leaf ? weights[leaf++] : pair;
            package += !take_leaf;
            is_leaf[level][made++] = (uint8_t)take_leaf;
        }
        size = made;
    }
    int chosen = 2 * n - 2;
    memset(bits, 0, (size_t)n);
    for (int level = HUFFMAN_MAX_BITS - 1; level >= 0 && chosen > 0; level--) {
        int leaf = 0;
        for (int i = 0; i < chosen; i++)
            leaf += is_leaf[level][i];
        for (int i = 0; i < leaf; i++)
            bits[i]++;
        chosen = 2 * (chosen - leaf);
    }
}

/* Sets lengths[s] for each symbol with a count; there must be at least two. */
static void huffman_lengths(const uint32_t *counts, uint8_t *lengths)
{
    uint8_t symbols[256], bits[256];
    uint32_t weights[256], total = 0;
    int n = 0;
    memset(lengths, 0, 256);
    for (int s = 0; s < 256; s++)
        if (counts[s]) {
            symbols[n++] = (uint8_t)s;
            total += counts[s];
        }
    huffman_sort(counts, symbols, n);
    /* The rarest symbols would get too many bits. Counts like that of a symbol with just as many as there may be give
     * nearly what is optimal under the limit, in a fraction of the time. */
    const uint32_t least = total >> HUFFMAN_MAX_BITS;
    for (int i = 0; i < n; i++)
        weights[i] = counts[symbols[i]] < least ? least : counts[symbols[i]];
    if (!huffman_unlimited(weights, n, bits)) {
        for (int i = 0; i < n; i++)
            weights[i] = counts[symbols[i]];
        huffman_limited(weights, n, bits);
    }
    for (int i = 0; i < n; i++)
        lengths[symbols[i]] = bits[i];
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
            if (at % 8 == 0) /* they have six bits at most */
                bits_write(&to);
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
    int bits = 0, last = 0, symbols = 0, of_length[HUFFMAN_MAX_BITS + 2] = {0};
    uint32_t next[HUFFMAN_MAX_BITS + 2] = {0};
    int64_t above = 0; /* bits that all codes have together above so many each */
    huffman_lengths(counts, lengths);
    for (int s = 0; s < 256; s++) {
        if (lengths[s]) {
            last = s;
            symbols++;
            of_length[lengths[s]]++;
            above += (int64_t)counts[s] * (lengths[s] - HUFFMAN_SHORT_BITS);
            bits = lengths[s] > bits ? lengths[s] : bits;
        }
    }
    for (int length = bits, code = 0; length > 0; length--) { /* the longest codes come first */
        next[length] = (uint32_t)code;
        code = (code + of_length[length]) >> 1;
    }
    for (int s = 0; s < 256; s++) {
        weights[s] = lengths[s] ? (uint8_t)(bits + 1 - lengths[s]) : 0;
        const uint32_t code = lengths[s] ? next[lengths[s]]++ : 0;
        table->codes[s] = lengths[s] ? (uint64_t)code << (64 - lengths[s]) | lengths[s] : 0;
        table->low[s] = (uint8_t)code;
        table->high[s] = (uint8_t)(code >> 8 | lengths[s] << 3);
    }
    table->symbols = symbols;
    table->short_codes = above <= 0;
    table->tree_size = huffman_put_tree(weights, last, table->tree);
    return table->tree_size != 0;
}

/* ---- streams --------------------------------------------------------------------------------------------- */

/* A stream while it is written, from its last symbol to its first. */
typedef struct {
    const uint8_t *start, *end; /* symbols that are left */
    uint8_t *out;
    uint64_t bits, used; /* those that do not fill a byte yet, and how many */
} huffman_stream;

/* Here the bits wait at the top of a word. A code has its length in its low bits, where a shift takes it from without
 * masking; what that leaves at the bottom of the word stays below the bits as long as there are not too many. How many
 * there are is in the low byte of `used` while codes are put. */

ALWAYS_INLINE void huffman_put_code(huffman_stream *to, uint64_t code)
{
    to->bits = to->bits >> (code & 63) | code;
    to->used += code;
}

/* Write the bits that there are, and keep those of the last byte if that is not full. */
ALWAYS_INLINE void huffman_flush(huffman_stream *to)
{
    to->used &= 0xff;
    uint64_t word = to->bits >> (64 - to->used);
    memcpy(to->out, &word, 8);
    to->out += to->used >> 3;
    to->used &= 7;
}

/* Five symbols at a time: 7 + 5 * 11 bits, if the last of the codes comes without its length. */
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

/* Four symbols at a time, two of them in one code: 7 + 4 * 11 bits, and the length of the last code below. */
ALWAYS_INLINE void huffman_put_two_pairs(huffman_stream *to, const uint64_t *pairs)
{
    huffman_put_code(to, huffman_pair(pairs, to->end - 2));
    huffman_put_code(to, huffman_pair(pairs, to->end - 4));
    to->end -= 4;
    huffman_flush(to);
}

/* Eight symbols at a time, if a word has room for their codes. */
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

/* Write what is left, and close the stream; returns its end. */
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

/* Write most of two streams of at least so many symbols side by side, for each waits for itself. */
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

/* Make a code of each two symbols that have one: that of the later symbol behind that of the earlier. The table is
 * looked up by two bytes as they stand in memory; of its half megabyte, a few dozen symbols use what fits a cache. */
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

#if defined(__x86_64__) && defined(__GNUC__)
#include "_huffman_vbmi.h"
#endif

/* Write streams of counts[i] symbols at from[i] one after another in vectors; sizes[i] is what stream i takes. Returns
 * the end, or NULL if that is not possible, or no faster. */
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

/* Write one stream or four one after another, of counts[i] symbols at from[i]; sizes[i] is what stream i takes. Returns
 * the end. */
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

/* Bytes that a section of so many literals may take while it is written, before it is known to be too large; vectors
 * write up to 64 behind the end. */
static size_t huffman_room(size_t size)
{
    return size * HUFFMAN_MAX_BITS / 8 + HUFFMAN_MAX_TREE + 128;
}

/* Write a section of compressed literals (RFC 8878 section 3.1.1.3.1) where there is the room for one; returns its
 * bytes, 0 if it is no smaller. */
static size_t huffman_put_literals(const uint8_t *data, size_t size, const uint32_t *counts, uint8_t *out)
{
    huffman_table table;
    if (!huffman_build(counts, &table))
        return 0;
    const int streams = size < 256 ? 1 : 4;
    const size_t header = size < 1024 ? 3 : size < 16384 ? 4 : 5, part = (size + 3) / 4; /* it will be smaller than size */
    const int size_bits = header == 3 ? 10 : header == 4 ? 14 : 18;
    const uint8_t *from[4];
    size_t parts[4], sizes[4];
    for (int i = 0; i < streams; i++) {
        from[i] = data + (size_t)i * part;
        parts[i] = streams == 1 ? size : i < 3 ? part : size - 3 * part;
    }
    uint8_t *const tree = out + header, *const table_of_sizes = tree + table.tree_size;
    memcpy(tree, table.tree, (size_t)table.tree_size);
    uint8_t *const end =
        huffman_streams(from, parts, streams, &table, table_of_sizes + (streams == 4 ? 6 : 0), sizes);
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
