/* FNV-1a of one buffer with AVX-512: three times as fast as the plain loop.
 *
 * The xor changes only the low byte l of the state, so low bytes can be computed without the rest: with x = l xor b,
 * the next l is x * 0xb3 mod 256. Bit k of that product is bit k of x, xored with something that only lower bits of x
 * decide. So the bits of all x in a block are prefix-xors over the block, computed from the lowest bit up. A prefix-xor
 * over 64 bits is a carry-less multiplication by all ones.
 *
 * Once all x are known, xoring a byte into the state means adding d = x - l to it. The state after n bytes is then a
 * plain sum: h * P^n + sum of d[i] * P^(n-i). The powers are cut into four signed 16-bit digits, which suits
 * multiply-add instructions.
 *
 * The stages of one 64-byte word wait for each other. A block has eight words, which hides that.
 */
#ifndef QATQFS_FNV_AVX512_H
#define QATQFS_FNV_AVX512_H

#include "fnv_plain.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#define FNV_BLOCK 512
#define FNV_WORDS (FNV_BLOCK / 64)

/* Digit s of P^(FNV_BLOCK - i) at [s][i], and P^FNV_BLOCK. Written once, when the module is loaded. */
static int16_t fnv_powers[4][FNV_BLOCK] __attribute__((aligned(64)));
static uint64_t fnv_block_power;

static void fnv_x86_init(void)
{
    uint64_t power = 1;
    for (int i = FNV_BLOCK - 1; i >= 0; i--) {
        power *= FNV_PRIME;
        uint64_t left = power;
        for (int s = 0; s < 4; s++) {
            int16_t digit = (int16_t)(left & 0xffff);
            fnv_powers[s][i] = digit;
            left = (left - (uint64_t)(int64_t)digit) >> 16;
        }
    }
    fnv_block_power = power;
}

/* Compute the prefix-xor over all words of a block. It turns changes of a bit into the bit. */
__attribute__((target("pclmul"), always_inline)) static inline void fnv_prefix_xor(uint64_t words[FNV_WORDS])
{
    const __m128i ones = _mm_set1_epi64x(-1);
    for (int j = 0; j < FNV_WORDS; j++)
        words[j] = (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)words[j]), ones, 0));
    for (int j = 1; j < FNV_WORDS; j++)
        words[j] ^= -(words[j - 1] >> 63);
}

/* Advance the state by a block, given the sum of each digit. */
static inline uint64_t fnv_advance(uint64_t hash, const int64_t sums[4])
{
    hash *= fnv_block_power;
    for (int s = 0; s < 4; s++)
        hash += (uint64_t)sums[s] << (16 * s);
    return hash;
}

__attribute__((target("avx512f,avx512bw,pclmul"))) static uint64_t fnv1a64_avx512(const uint8_t *data, size_t blocks,
                                                                                  uint64_t hash)
{
    uint8_t low = (uint8_t)hash;
    for (; blocks > 0; blocks--, data += FNV_BLOCK) {
        __m512i bytes[FNV_WORDS], product[FNV_WORDS], x[FNV_WORDS];
        for (int j = 0; j < FNV_WORDS; j++) {
            bytes[j] = _mm512_loadu_si512(data + 64 * j);
            product[j] = x[j] = _mm512_setzero_si512();
        }
#pragma GCC unroll 8
        for (int bit = 0; bit < 8; bit++) {
            const __m512i value = _mm512_set1_epi8((char)(1 << bit));
            const __m512i factor = _mm512_set1_epi8((char)(0xb3 << bit));
            uint64_t words[FNV_WORDS], before = (uint64_t)(low >> bit & 1);
            for (int j = 0; j < FNV_WORDS; j++) {
                uint64_t carried = bit ? _mm512_test_epi8_mask(product[j], value) : 0;
                words[j] = _mm512_test_epi8_mask(bytes[j], value) ^ (carried << 1) ^ before;
                before = carried >> 63;
            }
            fnv_prefix_xor(words);
            for (int j = 0; j < FNV_WORDS; j++) {
                x[j] = _mm512_mask_add_epi8(x[j], words[j], x[j], value);
                product[j] = _mm512_mask_add_epi8(product[j], words[j], product[j], factor);
            }
        }
        __m512i sums[4];
        for (int s = 0; s < 4; s++)
            sums[s] = _mm512_setzero_si512();
        for (int j = 0; j < FNV_WORDS; j++) {
            __m512i l = _mm512_xor_si512(x[j], bytes[j]);
            for (int half = 0; half < 2; half++) {
                __m256i x8 = half ? _mm512_extracti64x4_epi64(x[j], 1) : _mm512_castsi512_si256(x[j]);
                __m256i l8 = half ? _mm512_extracti64x4_epi64(l, 1) : _mm512_castsi512_si256(l);
                __m512i d = _mm512_sub_epi16(_mm512_cvtepu8_epi16(x8), _mm512_cvtepu8_epi16(l8));
                for (int s = 0; s < 4; s++) {
                    __m512i power = _mm512_load_si512(fnv_powers[s] + 64 * j + 32 * half);
                    sums[s] = _mm512_add_epi32(sums[s], _mm512_madd_epi16(d, power));
                }
            }
        }
        __m128i last = _mm512_extracti32x4_epi32(x[FNV_WORDS - 1], 3);
        low = (uint8_t)((uint32_t)_mm_extract_epi8(last, 15) * 0xb3);
        int64_t totals[4];
        for (int s = 0; s < 4; s++)
            totals[s] =
                _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums[s])),
                                                         _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sums[s], 1))));
        hash = fnv_advance(hash, totals);
    }
    return hash;
}
#endif

#endif
