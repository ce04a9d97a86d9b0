/* Encoding byte planes as zstd frames: one plane, to compare ways of coding it, or all planes of a chunk. */
#ifndef QATQFS_PLANE_ENCODE_H
#define QATQFS_PLANE_ENCODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "frame_write.h"
#include "huffman_write.h"
#include "matches_write.h"
#include "plane_stats.h"

/* Bytes of room for a frame while it is written. Its last block may turn out too large. */
static size_t plane_frame_room(size_t size)
{
    return size + 3 * (size / STATS_UNIT + 1) + 64 + huffman_room(size < FRAME_BLOCK_BYTES ? size : FRAME_BLOCK_BYTES);
}

/* Bytes of working memory for a plane: its blocks, and a frame of each kind. */
static size_t plane_encode_room(size_t size)
{
    return (size / STATS_UNIT + 2) * sizeof(stats_block) + 2 * plane_frame_room(size);
}

static void plane_place_room(plane_stats *stats, uint8_t *room, size_t size)
{
    room += -(uintptr_t)room % _Alignof(stats_block); /* there is a spare block for that */
    stats->blocks = (stats_block *)room;
    stats->frames[0] = room + (size / STATS_UNIT + 1) * sizeof(stats_block);
    stats->frames[1] = stats->frames[0] + plane_frame_room(size);
}

static uint8_t *plane_put_block(uint8_t *to, const uint8_t *data, const stats_block *block, int is_last)
{
    size_t size = block->size, body = 0;
    int kind = block->coded < 0;
    if (block->coded > 0) {
        body = huffman_put_literals(data, size, block->counts, to + 3);
        if (body != 0) {
            to[3 + body++] = 0; /* the number of sequences */
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
    return frame_put_block_header(to, kind, kind == 1 ? size : body, is_last) + body;
}

static size_t plane_put_singles(const uint8_t *data, size_t size, const plane_stats *stats)
{
    uint8_t *to = frame_put_header(stats->frames[0], size);
    size_t at = 0;
    for (const stats_block *block = stats->blocks; at < size; at += block++->size)
        to = plane_put_block(to, data + at, block, at + block->size == size);
    return (size_t)(to - stats->frames[0]);
}

/* Write a frame with matches, in the blocks that were found, or in the largest possible ones if the plane is noise. */
static __attribute__((noinline)) size_t plane_put_matches(const uint8_t *data, size_t size, const uint32_t *counts,
                                                          const plane_stats *stats)
{
    static _Thread_local match_space space;
    match_finder *finder = &space.finder;
    matches_start(finder, data, size, counts, stats->block_count == 0, space.table);
    uint8_t *to = frame_put_header(stats->frames[1], size);
    const stats_block *found = stats->block_count ? stats->blocks : NULL;
    for (size_t at = 0; at < size;) {
        stats_block stored;
        const stats_block *block = found != NULL ? found++ : &stored;
        if (block == &stored) {
            stored.size = (uint32_t)(size - at > FRAME_BLOCK_BYTES ? FRAME_BLOCK_BYTES : size - at);
            stored.bits = 8.f * (float)stored.size;
            stored.coded = 0;
        }
        size_t stop = at + block->size;
        uint32_t last_offset = finder->last_offset;
        size_t body = matches_put_block(&space, at, stop);
        if (body != 0 && body < block->size && (float)body * 8 < block->bits) {
            to = frame_put_block_header(to, 2, body, stop == size);
            memcpy(to, space.block, body);
            to += body;
        } else {
            finder->last_offset = last_offset;
            to = plane_put_block(to, data + at, block, stop == size);
        }
        at = stop;
    }
    return (size_t)(to - stats->frames[1]);
}

/* Examine a plane and write the frames that its share of repeats asks for. Returns 0 if `noise` is wrong. */
static int plane_encode(const uint8_t *data, size_t size, plane_stats *stats)
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
        stats->frame_sizes[0] = plane_put_singles(data, size, stats);
    if (stats->repeats >= matches_from)
        stats->frame_sizes[1] = plane_put_matches(data, size, counts, stats);
    return 1;
}

/* ---- all planes at once, where it is known how to code them ---------------------------------------------------- */

static int plane_is_constant(const uint8_t *data, size_t size)
{
    return data[0] == data[size / 2] && data[0] == data[size - 1] && memcmp(data, data + 1, size - 1) == 0;
}

/* The most bytes that the frames of `width` planes take. */
static size_t planes_frames_room(size_t size, int width)
{
    return (size_t)width * (size + 9 + 3 * (size / FRAME_BLOCK_BYTES + 1));
}

/* What is known of the planes of a chunk. Bit i of `by_repeats`: the share of repeats decides how plane i is coded. Bit
 * i of `by_matches`: it is coded with matches. */
typedef struct {
    unsigned by_repeats, by_matches;
    double repeats_limit;
} planes_ways;

/* Write a frame for each of the planes. Returns the end, or NULL if a plane is neither known nor constant nor noise.
 *
 * This repeats what planecoder.py decides for planes whose way is known, see module.c. */
static uint8_t *planes_encode(uint8_t *to, const uint8_t *planes, size_t size, int width, const planes_ways *ways,
                              uint8_t *room)
{
    for (int i = 0; i < width; i++, planes += size) {
        plane_stats stats = {0};
        int repeated = plane_is_constant(planes, size), form = 0;
        if (!repeated) {
            const int matches = ways->by_matches >> i & 1;
            stats.singles_below = stats.matches_from = matches ? 0 : ways->repeats_limit;
            stats.matches_in_noise_from = ways->repeats_limit;
            stats.noise = !matches && !(ways->by_repeats >> i & 1);
            plane_place_room(&stats, room, size);
            if (!plane_encode(planes, size, &stats))
                return NULL;
            form = stats.frame_sizes[0] == 0;
        }
        if (stats.frame_sizes[form] != 0 && stats.frame_sizes[form] < size) {
            memcpy(to, stats.frames[form], stats.frame_sizes[form]);
            to += stats.frame_sizes[form];
        } else {
            to = frame_put_uncoded(to, planes, size, repeated);
        }
    }
    return to;
}

#endif
