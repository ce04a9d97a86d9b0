/* How often each byte occurs. */
#ifndef QATQFS_HISTOGRAM_H
#define QATQFS_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

/* Count the bytes of at most 128 KiB, in four tables: a byte that repeats would wait for its own count. */
static void histogram(const uint8_t *data, size_t size, uint32_t *counts)
{
    uint16_t part[4][256];
    memset(part, 0, sizeof part);
    size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        uint64_t word, next;
        memcpy(&word, data + i, 8);
        memcpy(&next, data + i + 8, 8);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            part[k & 1][(uint8_t)(word >> 8 * k)]++;
            part[2 + (k & 1)][(uint8_t)(next >> 8 * k)]++;
        }
    }
    for (; i < size; i++)
        part[0][data[i]]++;
    for (int s = 0; s < 256; s++)
        counts[s] = (uint32_t)part[0][s] + part[1][s] + part[2][s] + part[3][s];
}
#endif
