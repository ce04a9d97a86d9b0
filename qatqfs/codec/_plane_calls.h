/* The calls of the module that split, filter, code and decode byte planes, and look at what is in them. */
#ifndef QATQFS_PLANE_CALLS_H
#define QATQFS_PLANE_CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_buffers.h"
#include "_cpu.h"
#include "_fnv.h"
#include "_literals.h"
#include "_planes.h"
#include "_stats.h"

/* ---- byte planes --------------------------------------------------------------------------------------- */

/* Take two buffers of equally many whole elements; 0 with an error set when they are something else. */
static int elements_fit(const Py_buffer *from, const Py_buffer *to, int width)
{
    if (from->len == to->len && (width == 2 || width == 4) && from->len % width == 0)
        return 1;
    PyErr_SetString(PyExc_ValueError, "buffers must be equally long, and a multiple of the width 2 or 4");
    return 0;
}

static int filter_fits(int width, int filter, Py_ssize_t stride)
{
    if (filter == FILTER_NONE || (filter == FILTER_XOR && stride >= 1 && (width == 2 || stride == 1)) ||
        (filter == FILTER_DIFFERENCE && width == 4 && stride == 1))
        return 1;
    PyErr_SetString(PyExc_ValueError, "there is no such filter for elements of this width");
    return 0;
}

enum transformation { SPLIT_PLANES, MERGE_PLANES, SWAP_ELEMENTS };

/* Do this to the elements of one buffer, into another; planes may have a filter. */
static PyObject *transform(PyObject *args, enum transformation which)
{
    Py_buffer from, to;
    int width, filter = FILTER_NONE;
    Py_ssize_t stride = 1;
    const char *format = which == SWAP_ELEMENTS ? "y*w*i" : "y*w*i|in";
    if (!PyArg_ParseTuple(args, format, &from, &to, &width, &filter, &stride))
        return NULL;
    int fits = elements_fit(&from, &to, width) && filter_fits(width, filter, stride);
    if (fits) {
        size_t n = (size_t)from.len / (size_t)width;
        const struct plane_kernels *kernels = &plane_kernels[instruction_set];
        Py_BEGIN_ALLOW_THREADS
        if (which == SWAP_ELEMENTS)
            kernels->swap(from.buf, to.buf, n, width);
        else
            (which == SPLIT_PLANES ? kernels->split : kernels->merge)(from.buf, to.buf, n, width, (enum filter)filter,
                                                                      (size_t)stride);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_split_planes(PyObject *module, PyObject *args)
{
    (void)module;
    return transform(args, SPLIT_PLANES);
}

static PyObject *py_merge_planes(PyObject *module, PyObject *args)
{
    (void)module;
    return transform(args, MERGE_PLANES);
}

static PyObject *py_swap_elements(PyObject *module, PyObject *args)
{
    (void)module;
    return transform(args, SWAP_ELEMENTS);
}

/* ---- byte planes coded, and statistics of them ---------------------------------------------------------- */

static PyObject *py_code_plane(PyObject *module, PyObject *args)
{
    Py_buffer data, room;
    plane_stats stats = {.runs = 1};
    PyObject *ends = NULL, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*ddd|p", &data, &room, &stats.singles_below, &stats.matches_from,
                          &stats.matches_in_noise_from, &stats.exact))
        return NULL;
    size_t size = (size_t)data.len;
    if (size == 0 || size > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a plane has 1 to 2**32 - 1 bytes");
        goto done;
    }
    if ((size_t)room.len < stats_room(size)) {
        PyErr_SetString(PyExc_ValueError, "the room has too few bytes");
        goto done;
    }
    stats_place(&stats, room.buf, size);
    Py_BEGIN_ALLOW_THREADS
    stats_code_plane(data.buf, size, &stats);
    Py_END_ALLOW_THREADS
    ends = PyList_New((Py_ssize_t)stats.block_count);
    for (size_t i = 0, end = 0; ends != NULL && i < stats.block_count; i++) {
        PyObject *number = PyLong_FromSize_t(end += stats.blocks[i].size);
        if (number == NULL)
            Py_CLEAR(ends);
        else
            PyList_SET_ITEM(ends, (Py_ssize_t)i, number);
    }
    if (ends != NULL) /* takes the list, whatever happens */
        result = Py_BuildValue("(y#y#dddN)", stats.frame_sizes[0] ? (const char *)stats.frames[0] : NULL,
                               (Py_ssize_t)stats.frame_sizes[0],
                               stats.frame_sizes[1] ? (const char *)stats.frames[1] : NULL,
                               (Py_ssize_t)stats.frame_sizes[1], stats.equal, stats.chance, stats.repeats, ends);
done:
    PyBuffer_Release(&data);
    PyBuffer_Release(&room);
    return result;
}

#define HASHED_BYTES (16 * 1024) /* at a time, so that they are still in the first-level cache */
#define PROVED_BYTES 4096        /* of a piece, whose hash is worked out by the plain loop as well */

/* Go on with the FNV-1a of elements, of each with its bytes reversed if `swapped`. */
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

/* The FNV-1a of elements as hash_elements gives it, proved: of one piece, another one each time, the plain loop has to
 * give the same as the kernel. So a kernel that went wrong on some data would be noticed. */
static uint64_t hash_proved(const uint8_t *data, size_t size, int width, int swapped, int *proved)
{
    static _Thread_local uint32_t turn;
    uint8_t piece[PROVED_BYTES];
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

static int width_fits(int width, size_t bytes)
{
    if ((width == 2 || width == 4) && bytes != 0 && bytes % (size_t)width == 0 && bytes / (size_t)width <= UINT32_MAX)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the values must be some whole elements of 2 or 4 bytes");
    return 0;
}

struct planes_job { /* what is the same for all chunks that are encoded in one call */
    Py_buffer prefix;
    Py_ssize_t checksum_at; /* in the prefix */
    Py_ssize_t longest;     /* result that is kept */
    size_t bytes;           /* of a chunk */
    int width, swapped, verified;
    stats_ways ways;
};

struct planes_made { /* of a chunk */
    PyObject *bytes;
    uint8_t *end;   /* of what is in them, NULL where a plane needs a trial, or they are not kept */
    int proved;     /* whether the checksum was, which is tried if the job is to verify */
    int verified;   /* whether the frames were decoded again, too, and compared */
};

/* Make of a chunk the prefix with the checksum of its values in it, then the frames of their planes. */
static void encode_chunk(const struct planes_job *job, const uint8_t *raw, struct planes_made *made, uint8_t *scratch)
{
    const size_t n = job->bytes / (size_t)job->width;
    uint8_t *const out = (uint8_t *)PyBytes_AS_STRING(made->bytes), *const frames = out + job->prefix.len;
    uint64_t hash = job->verified ? hash_proved(raw, job->bytes, job->width, job->swapped, &made->proved)
                                  : hash_elements(raw, job->bytes, job->width, job->swapped, FNV_OFFSET);
    memcpy(out, job->prefix.buf, (size_t)job->prefix.len);
    for (int i = 0; i < 8; i++)
        out[job->checksum_at + i] = (uint8_t)(hash >> (56 - 8 * i));
    plane_kernels[instruction_set].split(raw, scratch, n, job->width, FILTER_NONE, 1);
    made->end = stats_put_planes(frames, scratch, n, job->width, &job->ways, scratch + job->bytes);
    if (made->end != NULL && made->end - out > job->longest)
        made->end = NULL;
    if (made->proved && made->end != NULL)
        made->verified = frames_hold(frames, (size_t)(made->end - frames), raw, n, job->width, scratch);
}

/* Whether the chunks and the scratch memory are as the job needs them, which is told how long a chunk is. */
static int job_fits(struct planes_job *job, const Py_buffer *raws, Py_ssize_t count, size_t scratch_bytes)
{
    const char *problem = NULL;
    job->bytes = count ? (size_t)raws[0].len : 0;
    if (!width_fits(job->width, job->bytes))
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if ((size_t)raws[i].len != job->bytes)
            problem = "the chunks must be equally long";
    if (job->checksum_at < 0 || job->checksum_at > job->prefix.len - 8)
        problem = "the checksum must be in the prefix";
    else if (scratch_bytes < job->bytes + stats_room(job->bytes / (size_t)job->width))
        problem = "the scratch memory has too few bytes";
    if (problem != NULL)
        PyErr_SetString(PyExc_ValueError, problem);
    return problem == NULL;
}

/* Encode the chunks up to the first one of which nothing is kept: a list of what encode_chunk makes of each, and says. */
static PyObject *encode_chunks(const struct planes_job *job, const Py_buffer *raws, Py_ssize_t count, uint8_t *scratch)
{
    const Py_ssize_t room =
        job->prefix.len + (Py_ssize_t)stats_frames_room(job->bytes / (size_t)job->width, job->width);
    PyObject *results = PyList_New(0);
    struct planes_made *made = PyMem_Calloc((size_t)count, sizeof *made);
    int failed = results == NULL || made == NULL;
    for (Py_ssize_t i = 0; i < count && !failed; i++)
        failed = (made[i].bytes = PyBytes_FromStringAndSize(NULL, room)) == NULL;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            encode_chunk(job, raws[i].buf, &made[i], scratch);
            if (made[i].end == NULL)
                break;
        }
        Py_END_ALLOW_THREADS
    }
    for (Py_ssize_t i = 0; i < count && !failed && made[i].end != NULL; i++) {
        PyObject *each = NULL;
        if (_PyBytes_Resize(&made[i].bytes, made[i].end - (uint8_t *)PyBytes_AS_STRING(made[i].bytes)) == 0)
            each = PyTuple_Pack(3, made[i].bytes, made[i].verified ? Py_True : Py_False,
                                made[i].proved ? Py_True : Py_False);
        failed = each == NULL || PyList_Append(results, each) < 0;
        Py_XDECREF(each);
    }
    for (Py_ssize_t i = 0; made != NULL && i < count; i++)
        Py_XDECREF(made[i].bytes);
    if (failed && !PyErr_Occurred())
        PyErr_NoMemory();
    PyMem_Free(made);
    if (failed)
        Py_CLEAR(results);
    return results;
}

static PyObject *py_encode_planes(PyObject *module, PyObject *args)
{
    struct planes_job job = {0};
    Py_buffer scratch;
    PyObject *sequence, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oy*w*innpIIdp", &sequence, &job.prefix, &scratch, &job.width, &job.checksum_at,
                          &job.longest, &job.swapped, &job.ways.by_repeats, &job.ways.by_matches, &job.ways.repeats_limit,
                          &job.verified))
        return NULL;
    PyObject *items = PySequence_Tuple(sequence); /* nobody can shorten it while the GIL is released */
    Py_ssize_t count = items != NULL ? PyTuple_GET_SIZE(items) : 0, held = 0;
    Py_buffer *raws = PyMem_Calloc((size_t)count + 1, sizeof *raws);
    if (raws == NULL)
        PyErr_NoMemory();
    else if (items != NULL && (held = take_buffers(items, raws)) == count &&
             job_fits(&job, raws, count, (size_t)scratch.len))
        result = encode_chunks(&job, raws, count, scratch.buf);
    release_buffers(raws, held);
    PyMem_Free(raws);
    Py_XDECREF(items);
    PyBuffer_Release(&job.prefix);
    PyBuffer_Release(&scratch);
    return result;
}

/* Whether frames hold the planes of some values. */
static PyObject *py_frames_hold(PyObject *module, PyObject *args)
{
    Py_buffer frames, raw, scratch;
    int width, holds = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*i", &frames, &raw, &scratch, &width))
        return NULL;
    int fits = width_fits(width, (size_t)raw.len);
    if (fits && scratch.len < raw.len) {
        PyErr_SetString(PyExc_ValueError, "the scratch memory has too few bytes");
        fits = 0;
    }
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        holds = frames_hold(frames.buf, (size_t)frames.len, raw.buf, (size_t)raw.len / (size_t)width, width,
                            scratch.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&frames);
    PyBuffer_Release(&raw);
    PyBuffer_Release(&scratch);
    return fits ? PyBool_FromLong(holds) : NULL;
}

/* The checksum of the values that frames of planes hold, which go to `out`; None where libzstd has to decode them. */
static PyObject *py_decode_planes(PyObject *module, PyObject *args)
{
    Py_buffer data, scratch, out;
    int width, filter, swapped, decoded = 0;
    Py_ssize_t stride;
    uint64_t hash = FNV_OFFSET;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*w*iinp", &data, &scratch, &out, &width, &filter, &stride, &swapped))
        return NULL;
    const size_t bytes = (size_t)out.len;
    int fits = width_fits(width, bytes) && filter_fits(width, filter, stride);
    if (fits && scratch.len < out.len) {
        PyErr_SetString(PyExc_ValueError, "the scratch memory has too few bytes");
        fits = 0;
    }
    if (fits) {
        const struct plane_kernels *kernels = &plane_kernels[instruction_set];
        const size_t n = bytes / (size_t)width;
        Py_BEGIN_ALLOW_THREADS
        decoded = literals_decode_frames(data.buf, (size_t)data.len, scratch.buf, bytes);
        if (decoded && filter == FILTER_NONE) {
            for (size_t at = 0, size; at < bytes; at += size) {
                size = bytes - at < HASHED_BYTES ? bytes - at : HASHED_BYTES;
                kernels->merge_some((uint8_t *)scratch.buf + at / (size_t)width, n, (uint8_t *)out.buf + at,
                                    size / (size_t)width, width);
                hash = hash_elements((uint8_t *)out.buf + at, size, width, swapped, hash);
            }
        } else if (decoded) {
            kernels->merge(scratch.buf, out.buf, n, width, (enum filter)filter, (size_t)stride);
            hash = hash_elements(out.buf, bytes, width, swapped, hash);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&scratch);
    PyBuffer_Release(&out);
    if (!fits)
        return NULL;
    if (!decoded)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(hash);
}

static PyObject *py_equal_at_lags(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t lags;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*n", &data, &lags))
        return NULL;
    PyObject *counts = NULL;
    if (lags < 0 || lags > data.len) {
        PyErr_SetString(PyExc_ValueError, "more lags than there are bytes");
    } else if ((counts = PyBytes_FromStringAndSize(NULL, (lags + 1) * 4)) != NULL) {
        char *to = PyBytes_AS_STRING(counts);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t lag = 0; lag <= lags; lag++) {
            const uint8_t *start = (const uint8_t *)data.buf + (lags - lag);
            uint32_t count = (uint32_t)stats_equal_at(start, (size_t)(data.len - (lags - lag)), (size_t)lag);
            memcpy(to + 4 * lag, &count, 4);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return counts;
}

#endif
