/* Huffman codes for bytes, made from a histogram, and the description of their lengths (RFC 8878 section 4.2.1). */
#ifndef QATQFS_HUFFMAN_TABLE_H
#define QATQFS_HUFFMAN_TABLE_H

#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "fse_write.h"

#define HUFFMAN_MAX_BITS 11   /* of a code, RFC 8878 section 4.2.1 */
#define HUFFMAN_WEIGHTS_LOG 6 /* of the FSE table of weights, the largest that is legal */
#define HUFFMAN_MAX_TREE 128  /* bytes of a description, its length field included */
#define HUFFMAN_SHORT_BITS 5  /* of a code on average: eight such codes nearly always fit a word */

typedef struct {
    uint64_t codes[256]; /* code in the highest bits, its length in the lowest */
    uint8_t low[256];    /* the low eight bits of a code */
    uint8_t high[256];   /* the others in three bits, and above them its length */
    int symbols;         /* that have a code */
    int short_codes;     /* so short on average that eight of them nearly always fit a word */
    uint8_t tree[HUFFMAN_MAX_TREE];
    int tree_size;
} huffman_table;

/* ---- code lengths ---------------------------------------------------------------------------------------- */

/* Sort symbols by count, and keep the order of equal counts. A radix sort of six bits at a time, because comparisons
 * would be branches that nothing predicts. Counts are below 2**18. */
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

/* Huffman's own algorithm: set the bits of n weights in ascending order. Returns 0 if a code gets too long. */
static int huffman_unlimited(const uint32_t *weights, int n, uint8_t *bits)
{
    uint32_t leaves[258], nodes[258]; /* both in ascending order, ended by weights that are never taken */
    uint16_t parents[512];            /* of leaves, then of nodes */
    uint8_t depths[256];              /* of nodes */
    memcpy(leaves, weights, (size_t)n * sizeof *leaves);
    leaves[n] = leaves[n + 1] = UINT32_MAX;
    memset(nodes, 0xff, ((size_t)n + 1) * sizeof *nodes);
    for (int made = 0, leaf = 0, node = 0; made < n - 1; made++) {
        uint32_t sum = 0;
        for (int k = 0; k < 2; k++) { /* without a branch, because nothing predicts which is smaller */
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

/* Package-merge: set the bits of n weights in ascending order, as short as the limit of bits allows. */
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

/* Set lengths[s] for each symbol with a count. If there are fewer than two, set none. Returns how many there are. */
static int huffman_lengths(const uint32_t *counts, uint8_t *lengths)
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
    if (n < 2)
        return n;
    huffman_sort(counts, symbols, n);
    /* The rarest symbols would get codes that are too long. So their counts are raised to what the longest code is good
     * for. That is nearly optimal, in a fraction of the time of package-merge. */
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
    return n;
}

/* ---- the description of a table: weights, coded with FSE (RFC 8878 section 4.2.1) ------------------------ */

/* Write the description of `count` weights; that of the last symbol is implied. Returns its bytes, 0 if impossible. */
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
        int at = count; /* two states take turns; the first weight belongs to state 0 */
        uint32_t state[2];
        at--;
        state[at & 1] = fse_start(&table, weights[at]);
        at--;
        state[at & 1] = fse_start(&table, weights[at]);
        while (at > 0) {
            at--;
            state[at & 1] = fse_put(&to, &table, state[at & 1], weights[at]);
            if (at % 8 == 0) /* each added six bits at most */
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

/* Make the table for a histogram. Returns 0 if that has fewer than two symbols, or if no description is possible. */
static int huffman_build(const uint32_t *counts, huffman_table *table)
{
    uint8_t lengths[256], weights[256];
    int bits = 0, last = 0, of_length[HUFFMAN_MAX_BITS + 2] = {0};
    uint32_t next[HUFFMAN_MAX_BITS + 2] = {0};
    int64_t above = 0; /* bits of all codes together, beyond HUFFMAN_SHORT_BITS for each */
    const int symbols = huffman_lengths(counts, lengths);
    if (symbols < 2)
        return 0;
    for (int s = 0; s < 256; s++) {
        if (lengths[s]) {
            last = s;
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

#endif
