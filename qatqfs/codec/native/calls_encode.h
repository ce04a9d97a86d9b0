/* Calls that examine and encode byte planes. */
#ifndef QATQFS_CALLS_ENCODE_H
#define QATQFS_CALLS_ENCODE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "buffers.h"
#include "calls_planes.h"
#include "cpu.h"
#include "frame_read.h"
#include "plane_decode.h"
#include "plane_encode.h"
#include "plane_stats.h"
#include "planes.h"
#include "values_checksum.h"

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
    if ((size_t)room.len < plane_encode_room(size)) {
        PyErr_SetString(PyExc_ValueError, "the room has too few bytes");
        goto done;
    }
    plane_place_room(&stats, room.buf, size);
    Py_BEGIN_ALLOW_THREADS
    plane_encode(data.buf, size, &stats);
    Py_END_ALLOW_THREADS
    ends = PyList_New((Py_ssize_t)stats.block_count);
    for (size_t i = 0, end = 0; ends != NULL && i < stats.block_count; i++) {
        PyObject *number = PyLong_FromSize_t(end += stats.blocks[i].size);
        if (number == NULL)
            Py_CLEAR(ends);
        else
            PyList_SET_ITEM(ends, (Py_ssize_t)i, number);
    }
    if (ends != NULL) /* "N" takes over the list, even after an error */
        result =
            Py_BuildValue("(y#y#dddN)", stats.frame_sizes[0] ? (const char *)stats.frames[0] : NULL,
                          (Py_ssize_t)stats.frame_sizes[0], stats.frame_sizes[1] ? (const char *)stats.frames[1] : NULL,
                          (Py_ssize_t)stats.frame_sizes[1], stats.equal, stats.chance, stats.repeats, ends);
done:
    PyBuffer_Release(&data);
    PyBuffer_Release(&room);
    return result;
}

struct planes_job { /* what all chunks of one call share */
    Py_buffer prefix;
    Py_ssize_t checksum_at; /* offset in the prefix */
    Py_ssize_t longest;     /* a longer result is dropped */
    size_t bytes;           /* of each chunk */
    int width, swapped, verified;
    ZSTD_DCtx *decoder; /* to verify with */
    planes_ways ways;
};

struct planes_made { /* the result for one chunk */
    PyObject *bytes;
    uint8_t *end; /* of what was written to them; NULL if a plane needs a trial, or the result is too long */
    int proved;   /* whether the checksum was proved; only jobs that verify do it */
    int verified; /* whether the frames were also decoded and compared */
};

/* Write the prefix, with the checksum of the values in it, and after it the frames of their planes. */
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
    made->end = planes_encode(frames, scratch, n, job->width, &job->ways, scratch + job->bytes);
    if (made->end != NULL && made->end - out > job->longest)
        made->end = NULL;
    if (made->proved && made->end != NULL)
        made->verified = frames_hold(job->decoder, frames, (size_t)(made->end - frames), raw, n, job->width, scratch);
}

/* Check the chunks, the prefix and the scratch memory, and note the length of a chunk. Returns 0 with an error set. */
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
    else if (scratch_bytes < job->bytes + plane_encode_room(job->bytes / (size_t)job->width))
        problem = "the scratch memory has too few bytes";
    if (problem != NULL)
        PyErr_SetString(PyExc_ValueError, problem);
    return problem == NULL;
}

/* Encode chunks up to the first one without a result. Returns a list of (bytes, verified, proved). */
static PyObject *encode_chunks(const struct planes_job *job, const Py_buffer *raws, Py_ssize_t count, uint8_t *scratch)
{
    const Py_ssize_t room =
        job->prefix.len + (Py_ssize_t)planes_frames_room(job->bytes / (size_t)job->width, job->width);
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
                          &job.longest, &job.swapped, &job.ways.by_repeats, &job.ways.by_matches,
                          &job.ways.repeats_limit, &job.verified))
        return NULL;
    PyObject *items = PySequence_Tuple(sequence); /* a copy, because a list may be changed while the GIL is released */
    Py_ssize_t count = items != NULL ? PyTuple_GET_SIZE(items) : 0, held = 0;
    Py_buffer *raws = PyMem_Calloc((size_t)count + 1, sizeof *raws);
    if (raws == NULL)
        PyErr_NoMemory();
    else if (items != NULL && (held = take_buffers(items, raws)) == count &&
             job_fits(&job, raws, count, (size_t)scratch.len) &&
             (!job.verified || (job.decoder = decoder_or_error()) != NULL))
        result = encode_chunks(&job, raws, count, scratch.buf);
    decoder_give_back(job.decoder);
    release_buffers(raws, held);
    PyMem_Free(raws);
    Py_XDECREF(items);
    PyBuffer_Release(&job.prefix);
    PyBuffer_Release(&scratch);
    return result;
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
