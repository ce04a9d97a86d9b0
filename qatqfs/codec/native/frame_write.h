/* Writing zstd frames (RFC 8878 section 3.1.1): headers of frames and blocks, and whole frames of uncoded bytes. */
#ifndef QATQFS_FRAME_WRITE_H
#define QATQFS_FRAME_WRITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_BLOCK_BYTES (128 * 1024) /* the most that a block may hold, RFC 8878 section 3.1.1.2.4 */

static uint8_t *frame_put_header(uint8_t *to, size_t size)
{
    static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    int bytes = size < 256 ? 1 : size < 65536 + 256 ? 2 : 4; /* RFC 8878 section 3.1.1.1.1, a single segment */
    uint32_t value = (uint32_t)(bytes == 2 ? size - 256 : size);
    memcpy(to, magic, sizeof magic);
    to[4] = (uint8_t)(0x20 | (bytes >> 1) << 6);
    to += 5;
    for (int i = 0; i < bytes; i++)
        *to++ = (uint8_t)(value >> 8 * i);
    return to;
}

/* Kinds are 0 stored, 1 one byte repeated, 2 compressed. For the first two, the size is that of the content. */
static uint8_t *frame_put_block_header(uint8_t *to, int kind, size_t size, int is_last)
{
    uint32_t header = (uint32_t)size << 3 | (uint32_t)kind << 1 | (uint32_t)is_last;
    to[0] = (uint8_t)header;
    to[1] = (uint8_t)(header >> 8);
    to[2] = (uint8_t)(header >> 16);
    return to + 3;
}

/* Write a frame of stored bytes, or of the first one repeated. Returns the end. */
static uint8_t *frame_put_uncoded(uint8_t *to, const uint8_t *data, size_t size, int repeated)
{
    to = frame_put_header(to, size);
    for (size_t at = 0, length; at < size; at += length) {
        length = size - at > FRAME_BLOCK_BYTES ? FRAME_BLOCK_BYTES : size - at;
        to = frame_put_block_header(to, repeated, length, at + length == size);
        memcpy(to, data + at, repeated ? 1 : length);
        to += repeated ? 1 : length;
    }
    return to;
}

#endif
