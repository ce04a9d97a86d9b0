/* Decoding the frames of byte planes: to restore values, or to compare them with those that the frames were made of. */
#ifndef QATQFS_PLANE_DECODE_H
#define QATQFS_PLANE_DECODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "frame_read.h"
#include "planes.h"
#include "values_checksum.h"

/* Decode frames of the planes of n elements into `planes`, and write the elements to `raw`. Returns 1 and sets `hash`
 * to their checksum; 0 if the frames are wrong. `planes` and `raw` are undefined then. */
static int planes_decode(ZSTD_DCtx *decoder, const uint8_t *frames, size_t length, uint8_t *planes, uint8_t *raw,
                         size_t n, int width, enum filter filter, size_t stride, int swapped, uint64_t *hash)
{
    const struct plane_kernels *const kernels = &plane_kernels[instruction_set];
    const size_t bytes = n * (size_t)width;
    if (frames_decode(decoder, frames, length, planes, bytes) != NULL)
        return 0;
    *hash = FNV_OFFSET;
    if (filter != FILTER_NONE) {
        kernels->merge(planes, raw, n, width, filter, stride);
        *hash = hash_elements(raw, bytes, width, swapped, *hash);
        return 1;
    }
    for (size_t at = 0, size; at < bytes; at += size) { /* hashed while they are still in the cache */
        size = bytes - at < HASHED_BYTES ? bytes - at : HASHED_BYTES;
        kernels->merge_some(planes + at / (size_t)width, n, raw + at, size / (size_t)width, width);
        *hash = hash_elements(raw + at, size, width, swapped, *hash);
    }
    return 1;
}

/* Decode frames of unfiltered planes of n elements into `planes`. Returns whether they hold the elements of `raw`. */
static int frames_hold(ZSTD_DCtx *decoder, const uint8_t *frames, size_t length, const uint8_t *raw, size_t n,
                       int width, uint8_t *planes)
{
    const size_t bytes = n * (size_t)width;
    uint8_t some[HASHED_BYTES];
    if (frames_decode(decoder, frames, length, planes, bytes) != NULL)
        return 0;
    for (size_t at = 0, size; at < bytes; at += size) {
        size = bytes - at < sizeof some ? bytes - at : sizeof some;
        plane_kernels[instruction_set].merge_some(planes + at / (size_t)width, n, some, size / (size_t)width, width);
        if (memcmp(some, raw + at, size) != 0)
            return 0;
    }
    return 1;
}

#endif
