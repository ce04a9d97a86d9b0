/* Writing a stream of bits. The first one goes to the lowest bit of a byte. */
#ifndef QATQFS_BITS_H
#define QATQFS_BITS_H

#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t bits;
    int used;
    uint8_t *at;
} bit_writer;

/* Append `count` bits, at most 57. The value has no bits above them. */
static inline void bits_put(bit_writer *to, uint64_t value, int count)
{
    to->bits |= value << to->used;
    to->used += count;
    while (to->used >= 8) {
        *to->at++ = (uint8_t)to->bits;
        to->bits >>= 8;
        to->used -= 8;
    }
}

/* Append `count` bits without writing. At most 57 may wait. The value has no bits above them. */
static inline void bits_add(bit_writer *to, uint64_t value, uint32_t count)
{
    to->bits |= value << to->used;
    to->used += (int)count;
}

/* Write the whole bytes among those that wait. Overwrites up to eight bytes after the end. */
static inline void bits_write(bit_writer *to)
{
    memcpy(to->at, &to->bits, 8);
    to->at += to->used >> 3;
    to->bits >>= to->used & 56;
    to->used &= 7;
}

static inline void bits_pad(bit_writer *to)
{
    if (to->used)
        bits_put(to, 0, 8 - to->used);
}

/* End a stream that is read backwards. A one marks where a reader starts. */
static inline void bits_close(bit_writer *to)
{
    bits_put(to, 1, 1);
    bits_pad(to);
}

#endif
