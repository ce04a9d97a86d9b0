/* Calls that split and merge byte planes, and that decode the frames of planes. */
#ifndef QATQFS_CALLS_PLANES_H
#define QATQFS_CALLS_PLANES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "cpu.h"
#include "frame_read.h"
#include "plane_decode.h"
#include "planes.h"

/* Check that two buffers hold equally many whole elements. Returns 0 with an error set if they do not. */
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

/* Transform the elements of one buffer into another. Planes may have a filter. */
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

static int width_fits(int width, size_t bytes)
{
    if ((width == 2 || width == 4) && bytes != 0 && bytes % (size_t)width == 0 && bytes / (size_t)width <= UINT32_MAX)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the values must be some whole elements of 2 or 4 bytes");
    return 0;
}

static int scratch_fits(const Py_buffer *scratch, size_t bytes)
{
    if ((size_t)scratch->len >= bytes)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the scratch memory has too few bytes");
    return 0;
}

/* Return a decoder, or NULL with an error set. */
static ZSTD_DCtx *decoder_or_error(void)
{
    ZSTD_DCtx *const decoder = decoder_take();
    if (decoder == NULL)
        PyErr_NoMemory();
    return decoder;
}

static PyObject *py_frames_hold(PyObject *module, PyObject *args)
{
    Py_buffer frames, raw, scratch;
    ZSTD_DCtx *decoder = NULL;
    int width, holds = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*i", &frames, &raw, &scratch, &width))
        return NULL;
    const size_t bytes = (size_t)raw.len;
    if (width_fits(width, bytes) && scratch_fits(&scratch, bytes) && (decoder = decoder_or_error()) != NULL) {
        Py_BEGIN_ALLOW_THREADS
        holds =
            frames_hold(decoder, frames.buf, (size_t)frames.len, raw.buf, bytes / (size_t)width, width, scratch.buf);
        Py_END_ALLOW_THREADS
    }
    decoder_give_back(decoder);
    PyBuffer_Release(&frames);
    PyBuffer_Release(&raw);
    PyBuffer_Release(&scratch);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(holds);
}

static PyObject *py_decode_planes(PyObject *module, PyObject *args)
{
    Py_buffer data, scratch, out;
    ZSTD_DCtx *decoder = NULL;
    int width, filter, swapped, decoded = 0;
    Py_ssize_t stride;
    uint64_t hash = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*w*iinp", &data, &scratch, &out, &width, &filter, &stride, &swapped))
        return NULL;
    const size_t bytes = (size_t)out.len;
    if (width_fits(width, bytes) && filter_fits(width, filter, stride) && scratch_fits(&scratch, bytes) &&
        (decoder = decoder_or_error()) != NULL) {
        Py_BEGIN_ALLOW_THREADS
        decoded = planes_decode(decoder, data.buf, (size_t)data.len, scratch.buf, out.buf, bytes / (size_t)width, width,
                                (enum filter)filter, (size_t)stride, swapped, &hash);
        Py_END_ALLOW_THREADS
    }
    decoder_give_back(decoder);
    PyBuffer_Release(&data);
    PyBuffer_Release(&scratch);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    if (!decoded)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(hash);
}

#endif
