/* Byte planes (format section 1.2), split and merged together with their filter.
 *
 * Plane p holds byte p of every element, most significant first. The filters are those of strategies 4, 8, 9 and 10:
 * the XOR with the element `stride` before, or the wrapping difference to the element before. Splitting reads each
 * element and its predecessor. Merging works in blocks that stay in the first-level cache, so that undoing the filter
 * does not read memory again.
 *
 * The loops are plain C, which the compiler vectorises for each instruction set of cpu.h. Elements are little-endian in
 * memory, and so is the machine.
 */
#ifndef QATQFS_PLANES_H
#define QATQFS_PLANES_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

typedef uint16_t __attribute__((aligned(1), may_alias)) u16;
typedef uint32_t __attribute__((aligned(1), may_alias)) u32;

enum filter { FILTER_NONE, FILTER_XOR, FILTER_DIFFERENCE };

#define MERGE_BLOCK 4096 /* elements */

/* ---- splitting ---------------------------------------------------------------------------------------- */

/* Write n elements to planes that are `size` bytes apart, each XORed with the one at `before` unless that is NULL. */
ALWAYS_INLINE void split16_part(const u16 *restrict now, const u16 *restrict before, uint8_t *restrict planes,
                                size_t size, size_t n)
{
    uint8_t *restrict high = planes, *restrict low = planes + size;
    if (before == NULL) {
        for (size_t i = 0; i < n; i++) {
            high[i] = (uint8_t)(now[i] >> 8);
            low[i] = (uint8_t)now[i];
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t value = (uint16_t)(now[i] ^ before[i]);
            high[i] = (uint8_t)(value >> 8);
            low[i] = (uint8_t)value;
        }
    }
}

#define SPLIT32(EXPRESSION)                                                                                            \
    for (size_t i = 0; i < n; i++) {                                                                                   \
        uint32_t value = (EXPRESSION);                                                                                 \
        a[i] = (uint8_t)(value >> 24);                                                                                 \
        b[i] = (uint8_t)(value >> 16);                                                                                 \
        c[i] = (uint8_t)(value >> 8);                                                                                  \
        d[i] = (uint8_t)value;                                                                                         \
    }

ALWAYS_INLINE void split32_part(const u32 *restrict now, const u32 *restrict before, enum filter filter,
                                uint8_t *restrict planes, size_t size, size_t n)
{
    uint8_t *restrict a = planes, *restrict b = planes + size, *restrict c = planes + 2 * size,
                      *restrict d = planes + 3 * size;
    if (filter == FILTER_NONE) {
        SPLIT32(now[i])
    } else if (filter == FILTER_XOR) {
        SPLIT32(now[i] ^ before[i])
    } else {
        SPLIT32(now[i] - before[i])
    }
}

ALWAYS_INLINE void split_body(const uint8_t *raw, uint8_t *planes, size_t n, int width, enum filter filter,
                              size_t stride)
{
    size_t plain = filter == FILTER_NONE || stride > n ? n : stride;
    if (width == 2) {
        const u16 *words = (const u16 *)raw;
        split16_part(words, NULL, planes, n, plain);
        if (plain < n)
            split16_part(words + plain, words, planes + plain, n, n - plain);
    } else {
        const u32 *words = (const u32 *)raw;
        split32_part(words, NULL, FILTER_NONE, planes, n, plain);
        if (plain < n)
            split32_part(words + plain, words, filter, planes + plain, n, n - plain);
    }
}

/* ---- merging ------------------------------------------------------------------------------------------ */

ALWAYS_INLINE void merge16_part(const uint8_t *restrict high, const uint8_t *restrict low, u16 *restrict out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint16_t)(high[i] << 8 | low[i]);
}

ALWAYS_INLINE void merge32_part(const uint8_t *restrict planes, size_t size, u32 *restrict out, size_t n)
{
    const uint8_t *restrict a = planes, *restrict b = planes + size, *restrict c = planes + 2 * size,
                            *restrict d = planes + 3 * size;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)a[i] << 24 | (uint32_t)b[i] << 16 | (uint32_t)c[i] << 8 | d[i];
}

ALWAYS_INLINE void xor_into16(u16 *restrict out, const u16 *restrict before, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] ^= before[i];
}

/* Undo the filter in elements start..stop. It is undone in all elements before them. */
ALWAYS_INLINE void unfilter16(u16 *out, size_t start, size_t stop, size_t stride)
{
    if (stride == 1) {
        uint16_t value = start ? out[start - 1] : 0;
        for (size_t i = start; i < stop; i++)
            out[i] = value ^= out[i];
        return;
    }
    if (start < stride)
        start = stride;
    while (start < stop) {
        size_t n = stop - start < stride ? stop - start : stride;
        xor_into16(out + start, out + start - stride, n);
        start += n;
    }
}

ALWAYS_INLINE void unfilter32(u32 *out, size_t start, size_t stop, enum filter filter)
{
    uint32_t value = start ? out[start - 1] : 0;
    if (filter == FILTER_XOR)
        for (size_t i = start; i < stop; i++)
            out[i] = value ^= out[i];
    else
        for (size_t i = start; i < stop; i++)
            out[i] = value += out[i];
}

ALWAYS_INLINE void merge_body(const uint8_t *planes, uint8_t *raw, size_t n, int width, enum filter filter,
                              size_t stride)
{
    size_t block = filter == FILTER_NONE ? n : MERGE_BLOCK;
    for (size_t start = 0; start < n; start += block) {
        size_t stop = n - start < block ? n : start + block;
        if (width == 2) {
            u16 *out = (u16 *)raw;
            merge16_part(planes + start, planes + n + start, out + start, stop - start);
            if (filter != FILTER_NONE)
                unfilter16(out, start, stop, stride);
        } else {
            u32 *out = (u32 *)raw;
            merge32_part(planes + start, n, out + start, stop - start);
            if (filter != FILTER_NONE)
                unfilter32(out, start, stop, filter);
        }
    }
}

/* Merge n elements of unfiltered planes that are `size` bytes apart, starting where `planes` points. */
ALWAYS_INLINE void merge_some_body(const uint8_t *planes, size_t size, uint8_t *raw, size_t n, int width)
{
    if (width == 2)
        merge16_part(planes, planes + size, (u16 *)raw, n);
    else
        merge32_part(planes, size, (u32 *)raw, n);
}

/* ---- bytes of each element reversed: raw to canonical and back (format section 1.1) ---------------------- */

ALWAYS_INLINE void swap_body(const uint8_t *restrict from, uint8_t *restrict to, size_t n, int width)
{
    if (width == 2) {
        const u16 *restrict in = (const u16 *)from;
        u16 *restrict out = (u16 *)to;
        for (size_t i = 0; i < n; i++)
            out[i] = (uint16_t)(in[i] << 8 | in[i] >> 8);
    } else {
        const u32 *restrict in = (const u32 *)from;
        u32 *restrict out = (u32 *)to;
        for (size_t i = 0; i < n; i++)
            out[i] = __builtin_bswap32(in[i]);
    }
}

/* ---- one copy for each instruction set ------------------------------------------------------------------ */

struct plane_kernels {
    void (*split)(const uint8_t *raw, uint8_t *planes, size_t n, int width, enum filter filter, size_t stride);
    void (*merge)(const uint8_t *planes, uint8_t *raw, size_t n, int width, enum filter filter, size_t stride);
    void (*merge_some)(const uint8_t *planes, size_t size, uint8_t *raw, size_t n, int width);
    void (*swap)(const uint8_t *from, uint8_t *to, size_t n, int width);
};

#define PLANE_KERNELS(SET, TARGET)                                                                                     \
    TARGET static void split_##SET(const uint8_t *raw, uint8_t *planes, size_t n, int width, enum filter filter,       \
                                   size_t stride)                                                                      \
    {                                                                                                                  \
        split_body(raw, planes, n, width, filter, stride);                                                             \
    }                                                                                                                  \
    TARGET static void merge_##SET(const uint8_t *planes, uint8_t *raw, size_t n, int width, enum filter filter,       \
                                   size_t stride)                                                                      \
    {                                                                                                                  \
        merge_body(planes, raw, n, width, filter, stride);                                                             \
    }                                                                                                                  \
    TARGET static void merge_some_##SET(const uint8_t *planes, size_t size, uint8_t *raw, size_t n, int width)         \
    {                                                                                                                  \
        merge_some_body(planes, size, raw, n, width);                                                                  \
    }                                                                                                                  \
    TARGET static void swap_##SET(const uint8_t *from, uint8_t *to, size_t n, int width)                               \
    {                                                                                                                  \
        swap_body(from, to, n, width);                                                                                 \
    }

FOR_EACH_INSTRUCTION_SET(PLANE_KERNELS)

#define PLANE_KERNELS_ROW(SET, TARGET) {split_##SET, merge_##SET, merge_some_##SET, swap_##SET},
static const struct plane_kernels plane_kernels[] = {FOR_EACH_INSTRUCTION_SET(PLANE_KERNELS_ROW)};

#endif
