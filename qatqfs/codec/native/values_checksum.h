/* The checksum of the values of a chunk (format section 5). */
#ifndef QATQFS_VALUES_CHECKSUM_H
#define QATQFS_VALUES_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "fnv.h"
#include "planes.h"

#define HASHED_BYTES (16 * 1024) /* hashed at a time, so that they stay in the first-level cache */
#define PROVED_BYTES 4096        /* of the piece that the plain loop hashes too */

/* Advance an FNV-1a by elements. If `swapped`, the bytes of each element are reversed first. */
static uint64_t hash_elements(const uint8_t *data, size_t size, int width, int swapped, uint64_t hash)
{
    uint8_t some[HASHED_BYTES];
    if (!swapped)
        return fnv1a64(data, size, hash);
    for (size_t at = 0, length; at < size; at += length) {
        length = size - at < sizeof some ? size - at : sizeof some;
        plane_kernels[instruction_set].swap(data + at, some, length / (size_t)width, width);
        hash = fnv1a64(some, length, hash);
    }
    return hash;
}

/* Hash elements as hash_elements does, and prove the kernel: the plain loop has to give the same for one piece, another
 * one each time. So a kernel that goes wrong on some data is noticed. */
static uint64_t hash_proved(const uint8_t *data, size_t size, int width, int swapped, int *proved)
{
    static _Thread_local uint32_t turn;
    uint8_t piece[PROVED_BYTES] = {0};
    const size_t pieces = (size + PROVED_BYTES - 1) / PROVED_BYTES;
    const size_t start = pieces == 0 ? 0 : turn++ * 0x9e3779b1u % pieces * PROVED_BYTES;
    const size_t length = size - start < PROVED_BYTES ? size - start : PROVED_BYTES;
    uint64_t hash = hash_elements(data, start, width, swapped, FNV_OFFSET), plain;
    if (swapped)
        plane_kernels[SET_PORTABLE].swap(data + start, piece, length / (size_t)width, width);
    plain = fnv1a64_plain(swapped ? piece : data + start, length, hash);
    hash = hash_elements(data + start, length, width, swapped, hash);
    *proved = hash == plain;
    return hash_elements(data + start + length, size - start - length, width, swapped, hash);
}

#endif
