/* Frames of byte planes: of one plane whose ways are to be compared, and of all planes of a chunk. */
#ifndef QATQFS_PLANE_ENCODE_H
#define QATQFS_PLANE_ENCODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "frame_write.h"
#include "huffman_write.h"
#include "matches_write.h"
#include "plane_stats.h"

/* Bytes of a frame while it is written: its last block may yet turn out too large. */
static size_t stats_frame_room(size_t size)
{
    return size + 3 * (size / STATS_UNIT + 1) + 64 + huffman_room(size < STATS_SEGMENT ? size : STATS_SEGMENT);
}

/* Bytes of working memory for a plane: its blocks, and a frame of each kind. */
static size_t stats_room(size_t size)
{
    return (size / STATS_UNIT + 2) * sizeof(stats_block) + 2 * stats_frame_room(size);
}

static void stats_place(plane_stats *stats, uint8_t *room, size_t size)
{
    room += -(uintptr_t)room % _Alignof(stats_block); /* the spare block is for that */
    stats->blocks = (stats_block *)room;
    stats->frames[0] = room + (size / STATS_UNIT + 1) * sizeof(stats_block);
    stats->frames[1] = stats->frames[0] + stats_frame_room(size);
}

static uint8_t *stats_put_block(uint8_t *to, const uint8_t *data, const stats_block *block, int is_last)
{
    size_t size = block->size, body = 0;
    int kind = block->coded < 0;
    if (block->coded > 0) {
        body = huffman_put_literals(data, size, block->counts, to + 3);
        if (body != 0) {
            to[3 + body++] = 0; /* no sequences */
            kind = 2;
        }
    }
    if (kind == 1) {
        to[3] = data[0];
        body = 1;
    } else if (kind == 0) {
        memcpy(to + 3, data, size);
        body = size;
    }
    return stats_put_block_header(to, kind, kind == 1 ? size : body, is_last) + body;
}

static size_t stats_put_singles(const uint8_t *data, size_t size, const plane_stats *stats)
{
    uint8_t *to = stats_put_header(stats->frames[0], size);
    size_t at = 0;
    for (const stats_block *block = stats->blocks; at < size; at += block++->size)
        to = stats_put_block(to, data + at, block, at + block->size == size);
    return (size_t)(to - stats->frames[0]);
}

/* Write a frame with matches, in the blocks that were found, or in the largest that there may be in noise. */
static __attribute__((noinline)) size_t
stats_put_matches(const uint8_t *data, size_t size, const uint32_t *counts, const plane_stats *stats)
{
    static _Thread_local match_space space;
    match_finder *finder = &space.finder;
    matches_start(finder, data, size, counts, stats->block_count == 0, space.table);
    uint8_t *to = stats_put_header(stats->frames[1], size);
    const stats_block *found = stats->block_count ? stats->blocks : NULL;
    for (size_t at = 0; at < size;) {
        stats_block stored;
        const stats_block *block = found != NULL ? found++ : &stored;
        if (block == &stored) {
            stored.size = (uint32_t)(size - at > STATS_SEGMENT ? STATS_SEGMENT : size - at);
            stored.bits = 8.f * (float)stored.size;
            stored.coded = 0;
        }
        size_t stop = at + block->size;
        uint32_t last_offset = finder->last_offset;
        size_t body = matches_put_block(&space, at, stop);
        if (body != 0 && body < block->size && (float)body * 8 < block->bits) {
            to = stats_put_block_header(to, 2, body, stop == size);
            memcpy(to, space.block, body);
            to += body;
        } else {
            finder->last_offset = last_offset;
            to = stats_put_block(to, data + at, block, stop == size);
        }
        at = stop;
    }
    return (size_t)(to - stats->frames[1]);
}

/* Look at a plane and write the frames that are wanted; returns whether it was looked at. */
static int stats_code_plane(const uint8_t *data, size_t size, plane_stats *stats)
{
    uint32_t counts[256];
    size_t counted;
    double matches_from = stats->matches_from;
    if (stats_is_noise(data, size, counts)) {
        counted = size / (STATS_UNIT / STATS_SAMPLE);
        matches_from = stats->matches_in_noise_from;
    } else if (stats->noise) {
        return 0;
    } else {
        counted = stats_find_blocks(data, size, stats, counts);
        if (stats->runs)
            stats_look_for_runs(data, size, counts, counted, stats);
    }
    stats->repeats = stats_repeats(data, size, stats_anchor(counts, counted));
    if (stats->block_count != 0 && stats->repeats < stats->singles_below)
        stats->frame_sizes[0] = stats_put_singles(data, size, stats);
    if (stats->repeats >= matches_from)
        stats->frame_sizes[1] = stats_put_matches(data, size, counts, stats);
    return 1;
}

/* ---- all planes at once, where it is known how to code them ---------------------------------------------------- */

static int stats_is_constant(const uint8_t *data, size_t size)
{
    return data[0] == data[size / 2] && data[0] == data[size - 1] && memcmp(data, data + 1, size - 1) == 0;
}

/* Bytes that the frames of `width` planes take at most. */
static size_t stats_frames_room(size_t size, int width)
{
    return (size_t)width * (size + 9 + 3 * (size / STATS_SEGMENT + 1));
}

/* What is known of the planes: bit i for plane i that is coded best as its share of repeats has it, or with matches. */
typedef struct {
    unsigned by_repeats, by_matches;
    double repeats_limit;
} stats_ways;

/* Put a frame for each of the planes at `to`; returns the end, or NULL where a plane is neither constant nor noise nor
 * among those that are known. */
static uint8_t *stats_put_planes(uint8_t *to, const uint8_t *planes, size_t size, int width, const stats_ways *ways,
                                 uint8_t *room)
{
    for (int i = 0; i < width; i++, planes += size) {
        plane_stats stats = {0};
        int repeated = stats_is_constant(planes, size), form = 0;
        if (!repeated) {
            const int matches = ways->by_matches >> i & 1;
            stats.singles_below = stats.matches_from = matches ? 0 : ways->repeats_limit;
            stats.matches_in_noise_from = ways->repeats_limit;
            stats.noise = !matches && !(ways->by_repeats >> i & 1);
            stats_place(&stats, room, size);
            if (!stats_code_plane(planes, size, &stats))
                return NULL;
            form = stats.frame_sizes[0] == 0;
        }
        if (stats.frame_sizes[form] != 0 && stats.frame_sizes[form] < size) {
            memcpy(to, stats.frames[form], stats.frame_sizes[form]);
            to += stats.frame_sizes[form];
        } else {
            to = stats_put_uncoded(to, planes, size, repeated);
        }
    }
    return to;
}

#endif
