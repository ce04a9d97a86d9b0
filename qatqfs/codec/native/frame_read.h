/* Reading zstd frames (RFC 8878) with libzstd.
 *
 * Only stable calls of libzstd are used. The data is hostile: it may lie about sizes, be cut off, or be millions of
 * empty frames. Neither function takes memory that depends on what the data says. A frame's window needs none either,
 * because libzstd decodes a whole frame straight into the output and refers back to what is there.
 *
 * libzstd may have been built with its decoders of formats older than 1.0. They are never reached: a frame has to begin
 * with one of the two kinds of magic that RFC 8878 knows.
 */
#ifndef QATQFS_FRAME_READ_H
#define QATQFS_FRAME_READ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <zstd.h>

struct frames_found {
    size_t last_start;    /* offset of the last frame */
    int last_skippable;   /* whether that is a skippable one */
    int unsized;          /* whether a frame does not say how much it holds */
    uint64_t sized_bytes; /* what the others hold together, by their headers; UINT64_MAX if that is too much */
};

static int frame_is_skippable(const uint8_t *data, size_t size)
{
    return size >= 4 && (data[0] & 0xf0) == 0x50 && memcmp(data + 1, "\x2a\x4d\x18", 3) == 0;
}

static int frame_has_content(const uint8_t *data, size_t size)
{
    return size >= 4 && memcmp(data, "\x28\xb5\x2f\xfd", 4) == 0;
}

/* Find the frames that fill `data` exactly, by headers of frames and blocks. Returns NULL, or the problem. */
static const char *frames_walk(const uint8_t *data, size_t size, struct frames_found *found)
{
    memset(found, 0, sizeof *found);
    for (size_t at = 0, length; at < size; at += length) {
        const uint8_t *const frame = data + at;
        const size_t left = size - at;
        found->last_start = at;
        found->last_skippable = frame_is_skippable(frame, left);
        if (!found->last_skippable && !frame_has_content(frame, left))
            return "there are bytes that are no frame";
        length = ZSTD_findFrameCompressedSize(frame, left);
        if (ZSTD_isError(length))
            return ZSTD_getErrorName(length);
        if (found->last_skippable)
            continue;
        const uint64_t content = ZSTD_getFrameContentSize(frame, left);
        if (frame[4] >> 5 == 0) /* no size field, and no single segment, which would have one */
            found->unsized = 1;
        else
            found->sized_bytes = content > UINT64_MAX - found->sized_bytes ? UINT64_MAX : found->sized_bytes + content;
    }
    return NULL;
}

/* Decode frames that fill `data` exactly and hold exactly `size` bytes. Returns NULL, or the problem. */
static const char *frames_decode(ZSTD_DCtx *decoder, const uint8_t *data, size_t length, uint8_t *out, size_t size)
{
    struct frames_found found;
    const char *problem = frames_walk(data, length, &found);
    if (problem != NULL)
        return problem;
    if (found.sized_bytes > size)
        return "it holds too much";
    const size_t made = ZSTD_decompressDCtx(decoder, out, size, data, length);
    if (ZSTD_isError(made))
        return ZSTD_getErrorName(made);
    return made == size ? NULL : "it ends too early";
}

/* ---- decoders that are not in use ------------------------------------------------------------------------ */

/* A decoder takes some 96 KiB and is expensive to make. Threads come and go, so none of them owns one: a call takes
 * the decoder that was given back last. The interpreter's lock protects the two variables. */
#define DECODERS_KEPT 16
static ZSTD_DCtx *decoders_idle[DECODERS_KEPT];
static int decoders_idle_count;

/* Return a decoder, NULL if there is no memory for one. Needs the interpreter's lock. */
static ZSTD_DCtx *decoder_take(void)
{
    return decoders_idle_count > 0 ? decoders_idle[--decoders_idle_count] : ZSTD_createDCtx();
}

/* Give a decoder back; NULL is allowed. Needs the interpreter's lock. */
static void decoder_give_back(ZSTD_DCtx *decoder)
{
    if (decoder != NULL && decoders_idle_count < DECODERS_KEPT)
        decoders_idle[decoders_idle_count++] = decoder;
    else
        ZSTD_freeDCtx(decoder);
}

#endif
