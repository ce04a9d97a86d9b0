/* Writing Huffman streams with AVX-512 VBMI2: the codes of 64 symbols are looked up and joined at once.
 *
 * Symbols are taken from the end of the stream, the last one first. Byte permutes look up codes and their lengths.
 * Neighbours are then joined three times, into lanes of twice the width, until eight symbols make an octet in a lane of
 * 64 bits. Running sums of the lengths say at which bit of a byte each octet begins. It is shifted there, and receives
 * the bits that the octet before left in this byte. An octet has at least eight bits, so it ends in another byte than
 * it begins in, and a byte never has bits of more than two. The full bytes of all octets are then packed and stored at
 * once.
 *
 * An octet of more than 56 bits may be too long for that. Then the group is put in lanes of four symbols. If one of
 * these has fewer than eight bits, it is put in words of four symbols, one after another.
 */
#ifndef QATQFS_HUFFMAN_STREAMS_VBMI_H
#define QATQFS_HUFFMAN_STREAMS_VBMI_H

#include "huffman_streams.h"
#include "huffman_table.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#define HUFFMAN_GROUP 64      /* symbols */
#define HUFFMAN_OCTET_BITS 56 /* of an octet that fits a lane after 7 other bits, with one to spare */

#define HUFFMAN_VBMI target("bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")
#define HUFFMAN_VBMI_INLINE __attribute__((HUFFMAN_VBMI, always_inline)) static inline

HUFFMAN_VBMI_INLINE __m512i huffman_lookup(const __m512i table[4], __m512i symbols)
{
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(symbols), _mm512_permutex2var_epi8(table[0], symbols, table[1]),
                                  _mm512_permutex2var_epi8(table[2], symbols, table[3]));
}

/* Join the halves of each lane of 32 bits: the upper half follows the lower. The upper halves of `shifts` say how many
 * bits the lower halves have. The lower halves of `shifts` are zero. */
HUFFMAN_VBMI_INLINE __m512i huffman_join32(__m512i halves, __m512i shifts)
{
    return _mm512_madd_epi16(halves, _mm512_sllv_epi16(_mm512_set1_epi16(1), shifts));
}

/* Join the halves of each lane of 64 bits: the upper half follows the lower, which has `lower_length` bits. */
HUFFMAN_VBMI_INLINE __m512i huffman_join64(__m512i halves, __m512i lower_length)
{
    const __m512i upper = _mm512_sllv_epi64(_mm512_srli_epi64(halves, 32), lower_length);
    return _mm512_ternarylogic_epi64(upper, halves, _mm512_set1_epi64(0xffffffff), 0xf8); /* upper | halves & mask */
}

/* A stream while groups are put. Each lane has the bit of a byte where it continues; the last has the bits before. */
typedef struct {
    __m512i start, left;
    uint8_t *out;
} huffman_lanes;

/* Put lanes of 8 to 56 bits. */
HUFFMAN_VBMI_INLINE void huffman_put_lanes(huffman_lanes *to, __m512i lanes, __m512i lengths)
{
    const __m512i zero = _mm512_setzero_si512(), seven = _mm512_set1_epi64(7);
    const __m512i in_lane = _mm512_set1_epi64(0x0706050403020100);      /* number of each byte */
    const __m512i of_each_lane = _mm512_set1_epi64(0x3830282018100800); /* the low bytes of all lanes */
    const __m512i lanes_before = _mm512_set_epi64(0x00ffffffffffffff, 0x0000ffffffffffff, 0x000000ffffffffff,
                                                  0xffffffff, 0xffffff, 0xffff, 0xff, 0);
    const __m512i first_of_lane =
        _mm512_set_epi64(0x0808080808080808, 0, 0x0808080808080808, 0, 0x0808080808080808, 0, 0x0808080808080808, 0);
    const __m512i everywhere = _mm512_permutexvar_epi8(of_each_lane, lengths);
    const __m512i before = _mm512_sad_epu8(_mm512_and_si512(everywhere, lanes_before), zero);
    const __m512i begin = _mm512_and_si512(_mm512_add_epi64(to->start, before), seven);
    const __m512i end = _mm512_add_epi64(begin, lengths);
    const __m512i shifted = _mm512_sllv_epi64(lanes, begin);
    const __m512i over = _mm512_srlv_epi64(shifted, _mm512_andnot_si512(seven, end));
    const __m512i words = _mm512_or_si512(shifted, _mm512_alignr_epi64(over, to->left, 7));
    /* The full bytes of each lane are those whose number is below how many there are. */
    const __m512i full = _mm512_shuffle_epi8(_mm512_srli_epi64(end, 3), first_of_lane);
    const __mmask64 kept = _mm512_cmplt_epu8_mask(in_lane, full);
    _mm512_storeu_si512(to->out, _mm512_maskz_compress_epi8(kept, words));
    to->out += __builtin_popcountll(kept);
    to->start = _mm512_and_si512(_mm512_add_epi64(to->start, _mm512_sad_epu8(everywhere, zero)), seven);
    to->left = over;
}

/* Put a group one quad after another. `quads` and their lengths are halves of lanes of 128 bits. */
__attribute__((HUFFMAN_VBMI, noinline)) static void huffman_put_quads(huffman_lanes *to, const __m512i quads[2],
                                                                      __m512i of_quads)
{
    uint64_t words[2][8], before[8];
    uint32_t lengths[16];
    _mm512_storeu_si512(words[0], quads[0]);
    _mm512_storeu_si512(words[1], quads[1]);
    _mm512_storeu_si512(lengths, of_quads);
    _mm512_storeu_si512(before, to->left);
    uint64_t bits = before[7], used = (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(to->start));
    for (int i = 0; i < 16; i++) { /* a lane of 128 bits has four quads, two in each half */
        bits |= words[i >> 1 & 1][(i >> 2) * 2 + (i & 1)] << used;
        memcpy(to->out, &bits, 8);
        used += lengths[i];
        to->out += used >> 3;
        bits >>= used & 56;
        used &= 7;
    }
    to->start = _mm512_set1_epi64((long long)used);
    to->left = _mm512_set1_epi64((long long)bits);
}

/* Put whole groups of symbols from the end of a stream. The output needs room for 64 bytes more than they take. */
__attribute__((HUFFMAN_VBMI)) static void huffman_put_groups(huffman_stream *stream, const huffman_table *table)
{
    const __m512i zero = _mm512_setzero_si512(), low_word = _mm512_set1_epi64(0xffffffff);
    const __m512i reversed =
        _mm512_set_epi64(0x0001020304050607, 0x08090a0b0c0d0e0f, 0x1011121314151617, 0x18191a1b1c1d1e1f,
                         0x2021222324252627, 0x28292a2b2c2d2e2f, 0x3031323334353637, 0x38393a3b3c3d3e3f);
    const __m512i first_quads = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0); /* of both halves, in order */
    const __m512i last_quads = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    huffman_lanes to = {_mm512_set1_epi64((long long)stream->used), _mm512_set1_epi64((long long)stream->bits),
                        stream->out};
    __m512i low[4], high[4];
    const uint8_t *at = stream->end;
    for (int i = 0; i < 4; i++) {
        low[i] = _mm512_loadu_si512(table->low + 64 * i);
        high[i] = _mm512_loadu_si512(table->high + 64 * i);
    }
    while (at - stream->start >= HUFFMAN_GROUP) {
        at -= HUFFMAN_GROUP;
        const __m512i symbols = _mm512_permutexvar_epi8(reversed, _mm512_loadu_si512(at));
        const __m512i lower = huffman_lookup(low, symbols), rest = huffman_lookup(high, symbols);
        const __m512i upper = _mm512_and_si512(rest, _mm512_set1_epi8(7));
        const __m512i lengths = _mm512_and_si512(_mm512_srli_epi16(rest, 3), _mm512_set1_epi8(15));
        const __m512i even = _mm512_and_si512(lengths, _mm512_set1_epi16(255));
        const __m512i of_pairs = _mm512_maddubs_epi16(lengths, _mm512_set1_epi8(1));
        const __m512i of_quads = _mm512_madd_epi16(of_pairs, _mm512_set1_epi16(1));
        const __m512i even_pairs = _mm512_and_si512(of_pairs, _mm512_set1_epi32(0xffff));
        const __m512i pairs[2] = {
            huffman_join32(_mm512_unpacklo_epi8(lower, upper), _mm512_unpacklo_epi16(zero, even)),
            huffman_join32(_mm512_unpackhi_epi8(lower, upper), _mm512_unpackhi_epi16(zero, even))};
        const __m512i quads[2] = {huffman_join64(pairs[0], _mm512_unpacklo_epi32(even_pairs, zero)),
                                  huffman_join64(pairs[1], _mm512_unpackhi_epi32(even_pairs, zero))};
        const __m512i first = _mm512_unpacklo_epi64(quads[0], quads[1]);
        const __m512i second = _mm512_unpackhi_epi64(quads[0], quads[1]);
        const __m512i of_first = _mm512_and_si512(of_quads, low_word);
        const __m512i of_octets = _mm512_add_epi64(of_first, _mm512_srli_epi64(of_quads, 32));
        if (__builtin_expect(_mm512_cmpgt_epi64_mask(of_octets, _mm512_set1_epi64(HUFFMAN_OCTET_BITS)) == 0, 1)) {
            huffman_put_lanes(&to, _mm512_or_si512(first, _mm512_sllv_epi64(second, of_first)), of_octets);
        } else if (_mm512_cmplt_epi32_mask(of_quads, _mm512_set1_epi32(8)) == 0) {
            huffman_put_lanes(&to, _mm512_permutex2var_epi64(quads[0], first_quads, quads[1]),
                              _mm512_cvtepu32_epi64(_mm512_castsi512_si256(of_quads)));
            huffman_put_lanes(&to, _mm512_permutex2var_epi64(quads[0], last_quads, quads[1]),
                              _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(of_quads, 1)));
        } else {
            huffman_put_quads(&to, quads, of_quads);
        }
    }
    uint64_t before[8];
    _mm512_storeu_si512(before, to.left);
    stream->end = at;
    stream->out = to.out;
    stream->used = (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(to.start));
    stream->bits = before[7];
}
#endif

#endif
