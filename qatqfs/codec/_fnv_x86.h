/* FNV-1a of one buffer, vectorised for x86: twice to three times the speed of the plain loop.
 *
 * The xor touches only the low byte of the state, so the low byte is a machine of its own: with x = l xor b,
 * the next l is x * 0xb3 mod 256. In that product bit k is bit k of x, xored with something that depends on
 * lower bits of x only. Lowest bit first, the bits of all x in a block are therefore prefix-xors over the
 * block, and a prefix-xor over 64 bits is a carry-less multiplication by all ones.
 *
 * With all x known, xoring a byte into the state is adding d = x - l to it, and the state after n bytes is a
 * plain sum: h * P^n + sum of d[i] * P^(n-i). The powers are cut into four signed 16-bit digits, so that the
 * sums are what multiply-add instructions make.
 *
 * The stages of one 64-byte word wait for each other; a block has eight words, which hides that.
 */
#ifndef QATQFS_FNV_X86_H
#define QATQFS_FNV_X86_H

#include <immintrin.h>

#define FNV_BLOCK 512
#define FNV_WORDS (FNV_BLOCK / 64)

/* Digit s of P^(2 * FNV_BLOCK - i) at [s][i], so that of P^(FNV_BLOCK - i) is at [s][FNV_BLOCK + i]; and P^FNV_BLOCK.
 * Written once, when the module is loaded. */
static int16_t fnv_powers[4][2 * FNV_BLOCK] __attribute__((aligned(64)));
static uint64_t fnv_block_power;

static void fnv_x86_init(void)
{
    uint64_t power = 1;
    for (int i = 2 * FNV_BLOCK - 1; i >= 0; i--) {
        power *= FNV_PRIME;
        uint64_t left = power;
        for (int s = 0; s < 4; s++) {
            int16_t digit = (int16_t)(left & 0xffff);
            fnv_powers[s][i] = digit;
            left = (left - (uint64_t)(int64_t)digit) >> 16;
        }
        if (i == FNV_BLOCK)
            fnv_block_power = power;
    }
}

/* Turn the changes of the bits of one stage into the bits: prefix-xor over all words of a block. */
__attribute__((target("pclmul"), always_inline)) static inline void
fnv_prefix_xor(uint64_t words[FNV_WORDS])
{
    const __m128i ones = _mm_set1_epi64x(-1);
    for (int j = 0; j < FNV_WORDS; j++)
        words[j] = (uint64_t)_mm_cvtsi128_si64(
            _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)words[j]), ones, 0));
    for (int j = 1; j < FNV_WORDS; j++)
        words[j] ^= -(words[j - 1] >> 63);
}

/* Add up the digits' sums of one block and go on with the state. */
static inline uint64_t fnv_advance(uint64_t hash, const int64_t sums[4])
{
    hash *= fnv_block_power;
    for (int s = 0; s < 4; s++)
        hash += (uint64_t)sums[s] << (16 * s);
    return hash;
}

__attribute__((target("avx2"), always_inline)) static inline uint64_t fnv_bit_avx2(__m256i low, __m256i high,
                                                                                  int bit)
{
    const __m128i up = _mm_cvtsi32_si128(7 - bit);
    uint32_t first = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(low, up));
    uint32_t second = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(high, up));
    return (uint64_t)second << 32 | first;
}

__attribute__((target("avx2"), always_inline)) static inline __m256i fnv_expand_avx2(uint32_t bits)
{
    const __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i select = _mm256_set1_epi64x((long long)0x8040201008040201ULL);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), which);
    return _mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select);
}

__attribute__((target("avx2,pclmul"))) static uint64_t fnv1a64_avx2(const uint8_t *data, size_t blocks,
                                                                    uint64_t hash)
{
    uint8_t low = (uint8_t)hash;
    for (; blocks > 0; blocks--, data += FNV_BLOCK) {
        uint8_t xs[FNV_BLOCK] __attribute__((aligned(32)));
        __m256i product[2 * FNV_WORDS], x[2 * FNV_WORDS];
        for (int v = 0; v < 2 * FNV_WORDS; v++)
            product[v] = x[v] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int bit = 0; bit < 8; bit++) {
            uint64_t words[FNV_WORDS], before = (uint64_t)(low >> bit & 1);
            for (int j = 0; j < FNV_WORDS; j++) {
                __m256i a = _mm256_loadu_si256((const __m256i *)(data + 64 * j));
                __m256i b = _mm256_loadu_si256((const __m256i *)(data + 64 * j + 32));
                uint64_t carried = bit ? fnv_bit_avx2(product[2 * j], product[2 * j + 1], bit) : 0;
                words[j] = fnv_bit_avx2(a, b, bit) ^ (carried << 1) ^ before;
                before = carried >> 63;
            }
            fnv_prefix_xor(words);
            const __m256i value = _mm256_set1_epi8((char)(1 << bit));
            const __m256i factor = _mm256_set1_epi8((char)(0xb3 << bit));
            for (int v = 0; v < 2 * FNV_WORDS; v++) {
                __m256i set = fnv_expand_avx2((uint32_t)(words[v / 2] >> (v % 2 * 32)));
                x[v] = _mm256_or_si256(x[v], _mm256_and_si256(set, value));
                product[v] = _mm256_add_epi8(product[v], _mm256_and_si256(set, factor));
            }
        }
        for (int v = 0; v < 2 * FNV_WORDS; v++)
            _mm256_store_si256((__m256i *)(xs + 32 * v), x[v]);
        low = (uint8_t)(xs[FNV_BLOCK - 1] * 0xb3);
        __m256i sums[4];
        for (int s = 0; s < 4; s++)
            sums[s] = _mm256_setzero_si256();
        for (int i = 0; i < FNV_BLOCK; i += 16) {
            __m128i x8 = _mm_load_si128((const __m128i *)(xs + i));
            __m128i l8 = _mm_xor_si128(x8, _mm_loadu_si128((const __m128i *)(data + i)));
            __m256i d = _mm256_sub_epi16(_mm256_cvtepu8_epi16(x8), _mm256_cvtepu8_epi16(l8));
            for (int s = 0; s < 4; s++) {
                __m256i power = _mm256_load_si256((const __m256i *)(fnv_powers[s] + FNV_BLOCK + i));
                sums[s] = _mm256_add_epi32(sums[s], _mm256_madd_epi16(d, power));
            }
        }
        int64_t totals[4];
        for (int s = 0; s < 4; s++) {
            int32_t lanes[8];
            _mm256_storeu_si256((__m256i *)lanes, sums[s]);
            totals[s] = 0;
            for (int k = 0; k < 8; k++)
                totals[s] += lanes[k];
        }
        hash = fnv_advance(hash, totals);
    }
    return hash;
}

__attribute__((target("avx512f,avx512bw,pclmul"))) static uint64_t fnv1a64_avx512(const uint8_t *data,
                                                                                  size_t blocks, uint64_t hash)
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
                    __m512i power = _mm512_load_si512(fnv_powers[s] + FNV_BLOCK + 64 * j + 32 * half);
                    sums[s] = _mm512_add_epi32(sums[s], _mm512_madd_epi16(d, power));
                }
            }
        }
        __m128i last = _mm512_extracti32x4_epi32(x[FNV_WORDS - 1], 3);
        low = (uint8_t)((uint32_t)_mm_extract_epi8(last, 15) * 0xb3);
        int64_t totals[4];
        for (int s = 0; s < 4; s++)
            totals[s] = _mm512_reduce_add_epi64(
                _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums[s])),
                                 _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sums[s], 1))));
        hash = fnv_advance(hash, totals);
    }
    return hash;
}

#endif
