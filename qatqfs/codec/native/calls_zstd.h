/* Calls for zstd frames. */
#ifndef QATQFS_CALLS_ZSTD_H
#define QATQFS_CALLS_ZSTD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "frame_read.h"

static PyObject *py_walk_zstd(PyObject *module, PyObject *args)
{
    Py_buffer data;
    struct frames_found found;
    const char *problem;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*", &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    problem = frames_walk(data.buf, (size_t)data.len, &found);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    if (problem != NULL) {
        PyErr_SetString(PyExc_ValueError, problem);
        return NULL;
    }
    return Py_BuildValue("nOOK", (Py_ssize_t)found.last_start, found.last_skippable ? Py_True : Py_False,
                         found.unsized ? Py_True : Py_False, (unsigned long long)found.sized_bytes);
}

static PyObject *py_decompress_zstd(PyObject *module, PyObject *args)
{
    Py_buffer data, out;
    const char *problem = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &data, &out))
        return NULL;
    ZSTD_DCtx *const decoder = decoder_take();
    if (decoder != NULL) {
        Py_BEGIN_ALLOW_THREADS
        problem = frames_decode(decoder, data.buf, (size_t)data.len, out.buf, (size_t)out.len);
        Py_END_ALLOW_THREADS
        decoder_give_back(decoder);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    if (decoder == NULL)
        return PyErr_NoMemory();
    if (problem != NULL) {
        PyErr_SetString(PyExc_ValueError, problem);
        return NULL;
    }
    Py_RETURN_NONE;
}

#endif
