/* Decoding of the frames of byte planes, to compare them with the values they were made from. */
#ifndef QATQFS_PLANE_DECODE_H
#define QATQFS_PLANE_DECODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "frame_read.h"
#include "planes.h"
#include "values_checksum.h"

/* Decode frames of unfiltered planes of n elements and compare: whether they hold `raw`. */
static int frames_hold(const uint8_t *frames, size_t length, const uint8_t *raw, size_t n, int width, uint8_t *planes)
{
    const size_t bytes = n * (size_t)width;
    uint8_t some[HASHED_BYTES];
    if (!literals_decode_frames(frames, length, planes, bytes))
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
