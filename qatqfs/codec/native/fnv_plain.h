/* FNV-1a in a plain loop, and the constants that all forms of it share. */
#ifndef QATQFS_FNV_PLAIN_H
#define QATQFS_FNV_PLAIN_H

#include <stddef.h>
#include <stdint.h>

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME 0x00000100000001b3ULL

static uint64_t fnv1a64_plain(const uint8_t *data, size_t size, uint64_t hash)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * FNV_PRIME;
    return hash;
}

#endif
