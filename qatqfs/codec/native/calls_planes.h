/* The calls of the module that split, filter and merge byte planes, and decode them. */
#ifndef QATQFS_CALLS_PLANES_H
#define QATQFS_CALLS_PLANES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "cpu.h"
#include "plane_decode.h"
#include "planes.h"
#include "values_checksum.h"

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

static int width_fits(int width, size_t bytes)
{
    if ((width == 2 || width == 4) && bytes != 0 && bytes % (size_t)width == 0 && bytes / (size_t)width <= UINT32_MAX)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the values must be some whole elements of 2 or 4 bytes");
    return 0;
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

#endif
