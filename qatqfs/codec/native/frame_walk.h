/* The frames of zstd data, found by their headers alone (RFC 8878), without decompressing anything.
 *
 * One pass over the headers, in memory that does not depend on how many frames there are: hostile data may have
 * millions of empty ones.
 */
#ifndef QATQFS_FRAME_WALK_H
#define QATQFS_FRAME_WALK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ZSTD_BLOCK_MAX (128 * 1024)
#define ZSTD_WINDOW_LOG_MAX 31 /* what libzstd takes on 64-bit machines */
#define ZSTD_SKIPPABLE_HEADER 8

struct zstd_walk {
    size_t count;        /* frames */
    size_t last_start;   /* offset of the last one */
    int last_skippable;  /* whether it holds no content at all */
    size_t unsized;      /* frames whose header does not say how much they hold */
    uint64_t sized_bytes; /* what all the others hold together; as large as it gets when that is too much */
    size_t wide;         /* unsized frames whose window is larger than the limit */
};

static uint64_t zstd_little_endian(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/* Return the offset behind the blocks of a frame, 0 with `*problem` set when they are not sound. */
static size_t zstd_blocks_end(const uint8_t *data, size_t size, size_t at, uint64_t window, int sized,
                              const char **problem)
{
    const uint64_t largest = window < ZSTD_BLOCK_MAX ? window : ZSTD_BLOCK_MAX;
    for (;;) {
        if (size - at < 3) {
            *problem = "a zstd block is cut off";
            return 0;
        }
        uint32_t header = (uint32_t)zstd_little_endian(data + at, 3);
        uint32_t kind = header >> 1 & 3, length = header >> 3;
        size_t stored = kind == 1 ? 1 : length; /* one byte repeated */
        at += 3;
        if (kind == 3)
            *problem = "a zstd block is of the reserved type";
        else if (length > largest && (kind == 2 || !sized))
            *problem = "a zstd block is larger than its frame allows";
        else if (kind == 2 && length == 0)
            *problem = "a zstd block has no data";
        else if (stored > size - at)
            *problem = "a zstd block is cut off";
        if (*problem != NULL)
            return 0;
        at += stored;
        if (header & 1)
            return at;
    }
}

/* Walk one frame and note what it says; returns NULL, or what is wrong. With `narrow`, which is `data` writable, the
 * window of a wide frame is cut down to the smallest power of two of at least the limit. */
static const char *zstd_walk_frame(const uint8_t *data, size_t size, size_t *position, uint64_t window_limit,
                                   struct zstd_walk *walk, uint8_t *narrow)
{
    static const int id_sizes[4] = {0, 1, 2, 4}, content_sizes[4] = {0, 2, 4, 8};
    size_t at = *position;
    walk->count++;
    walk->last_start = at;
    walk->last_skippable = 0;
    if (size - at >= 4 && (data[at] & 0xf0) == 0x50 && memcmp(data + at + 1, "\x2a\x4d\x18", 3) == 0) {
        if (size - at < ZSTD_SKIPPABLE_HEADER)
            return "a skippable frame is cut off";
        uint64_t length = zstd_little_endian(data + at + 4, 4);
        at += ZSTD_SKIPPABLE_HEADER;
        if (length > size - at)
            return "a skippable frame is cut off";
        *position = at + (size_t)length;
        walk->last_skippable = 1;
        return NULL;
    }
    if (size - at < 4 || memcmp(data + at, "\x28\xb5\x2f\xfd", 4) != 0)
        return "zstd data has bytes that are no frame";
    at += 4;
    if (at == size)
        return "a zstd frame header is cut off";
    const uint8_t descriptor = data[at++];
    const int single_segment = descriptor >> 5 & 1, id_size = id_sizes[descriptor & 3];
    int content_size = content_sizes[descriptor >> 6];
    if (descriptor & 0x08)
        return "a zstd frame header has its reserved bit set";
    uint64_t window = 0;
    const size_t window_at = at;
    if (!single_segment) {
        if (at == size)
            return "a zstd frame header is cut off";
        int log = 10 + (data[at] >> 3);
        if (log > ZSTD_WINDOW_LOG_MAX)
            return "a zstd frame needs too large a window";
        window = (1ULL << log) + ((1ULL << log) >> 3) * (data[at] & 7);
        at++;
    } else if (content_size == 0) {
        content_size = 1;
    }
    if (size - at < (size_t)(id_size + content_size))
        return "a zstd frame header is cut off";
    if (zstd_little_endian(data + at, id_size) != 0)
        return "a zstd frame needs a dictionary";
    at += (size_t)id_size;
    if (content_size != 0) {
        uint64_t content = zstd_little_endian(data + at, content_size) + (content_size == 2 ? 256 : 0);
        if (single_segment)
            window = content;
        walk->sized_bytes = content > UINT64_MAX - walk->sized_bytes ? UINT64_MAX : walk->sized_bytes + content;
        at += (size_t)content_size;
    } else {
        walk->unsized++;
        if (window > window_limit) {
            walk->wide++;
            if (narrow != NULL) {
                int log = 10;
                while (1ULL << log < window_limit)
                    log++;
                narrow[window_at] = (uint8_t)((log - 10) << 3);
            }
        }
    }
    const char *problem = NULL;
    at = zstd_blocks_end(data, size, at, window, content_size != 0, &problem);
    if (problem != NULL)
        return problem;
    if (descriptor & 0x04) { /* a checksum of the content */
        if (size - at < 4)
            return "a zstd frame is cut off";
        at += 4;
    }
    *position = at;
    return NULL;
}

/* Walk the frames that fill `data` exactly; returns NULL, or what is wrong. */
static const char *zstd_walk(const uint8_t *data, size_t size, uint64_t window_limit, struct zstd_walk *walk,
                             uint8_t *narrow)
{
    memset(walk, 0, sizeof *walk);
    for (size_t at = 0; at < size;) {
        const char *problem = zstd_walk_frame(data, size, &at, window_limit, walk, narrow);
        if (problem != NULL)
            return problem;
    }
    return NULL;
}

#endif
