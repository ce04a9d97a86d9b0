/* The calls of the module that walk the frames of zstd data. */
#ifndef QATQFS_CALLS_ZSTD_H
#define QATQFS_CALLS_ZSTD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "frame_walk.h"

static PyObject *py_walk_zstd(PyObject *module, PyObject *args)
{
    Py_buffer data;
    unsigned long long window_limit;
    struct zstd_walk walk;
    const char *problem;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*K", &data, &window_limit))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    problem = zstd_walk(data.buf, (size_t)data.len, window_limit, &walk, NULL);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    if (problem != NULL) {
        PyErr_SetString(PyExc_ValueError, problem);
        return NULL;
    }
    return Py_BuildValue("nnOnKn", (Py_ssize_t)walk.count, (Py_ssize_t)walk.last_start,
                         walk.last_skippable ? Py_True : Py_False, (Py_ssize_t)walk.unsized,
                         (unsigned long long)walk.sized_bytes, (Py_ssize_t)walk.wide);
}

static PyObject *py_zstd_frame(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t start;
    struct zstd_walk walk;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*n", &data, &start))
        return NULL;
    const char *problem = "there is no frame";
    size_t at = (size_t)start;
    memset(&walk, 0, sizeof walk);
    if (start >= 0 && start < data.len)
        problem = zstd_walk_frame(data.buf, (size_t)data.len, &at, UINT64_MAX, &walk, NULL);
    PyBuffer_Release(&data);
    if (problem != NULL) {
        PyErr_SetString(PyExc_ValueError, problem);
        return NULL;
    }
    if (walk.unsized)
        return Py_BuildValue("nO", (Py_ssize_t)at, Py_None);
    return Py_BuildValue("nK", (Py_ssize_t)at, (unsigned long long)walk.sized_bytes);
}

static PyObject *py_narrow_zstd(PyObject *module, PyObject *args)
{
    Py_buffer data;
    unsigned long long window_limit;
    struct zstd_walk walk;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*K", &data, &window_limit))
        return NULL;
    const char *problem = zstd_walk(data.buf, (size_t)data.len, window_limit, &walk, data.buf);
    PyBuffer_Release(&data);
    if (problem != NULL) {
        PyErr_SetString(PyExc_ValueError, problem);
        return NULL;
    }
    Py_RETURN_NONE;
}

#endif
