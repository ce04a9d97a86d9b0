/* Calls for FNV-1a. */
#ifndef QATQFS_CALLS_FNV_H
#define QATQFS_CALLS_FNV_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "buffers.h"
#include "fnv.h"

#define RELEASE_GIL_ABOVE 4096 /* bytes; hashing fewer takes less time than handing over the GIL */

static PyObject *py_fnv1a64(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "state", NULL};
    Py_buffer data;
    unsigned long long state = FNV_OFFSET;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*|K", names, &data, &state))
        return NULL;
    uint64_t hash = state;
    if (data.len > RELEASE_GIL_ABOVE) {
        Py_BEGIN_ALLOW_THREADS
        hash = fnv1a64(data.buf, (size_t)data.len, hash);
        Py_END_ALLOW_THREADS
    } else {
        hash = fnv1a64(data.buf, (size_t)data.len, hash);
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLongLong(hash);
}

static PyObject *py_fnv1a64_many(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *items = PySequence_Tuple(arg); /* a copy, because a list may be changed while the GIL is released */
    if (items == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    PyObject *result = PyList_New(count);
    for (Py_ssize_t first = 0; result != NULL && first < count; first += 4) {
        Py_buffer buffers[4];
        const uint8_t *data[4] = {NULL, NULL, NULL, NULL};
        size_t sizes[4] = {0, 0, 0, 0};
        uint64_t states[4] = {FNV_OFFSET, FNV_OFFSET, FNV_OFFSET, FNV_OFFSET};
        int held = 0;
        while (held < 4 && first + held < count) {
            if (PyObject_GetBuffer(PyTuple_GET_ITEM(items, first + held), &buffers[held], PyBUF_SIMPLE) < 0)
                break;
            data[held] = buffers[held].buf;
            sizes[held] = (size_t)buffers[held].len;
            held++;
        }
        int failed = PyErr_Occurred() != NULL;
        if (!failed) {
            Py_BEGIN_ALLOW_THREADS
            fnv1a64_four(data, sizes, states);
            Py_END_ALLOW_THREADS
        }
        for (int i = 0; i < held; i++) {
            PyBuffer_Release(&buffers[i]);
            PyObject *value = failed ? NULL : PyLong_FromUnsignedLongLong(states[i]);
            if (value == NULL)
                failed = 1;
            else
                PyList_SET_ITEM(result, first + i, value);
        }
        if (failed)
            Py_CLEAR(result);
    }
    Py_DECREF(items);
    return result;
}

/* Return the state after each of several buffers that follow one another. */
static PyObject *py_fnv1a64_chain(PyObject *module, PyObject *args)
{
    PyObject *sequence, *result = NULL;
    unsigned long long state;
    (void)module;
    if (!PyArg_ParseTuple(args, "OK", &sequence, &state))
        return NULL;
    PyObject *items = PySequence_Tuple(sequence); /* a copy, because a list may be changed while the GIL is released */
    if (items == NULL)
        return NULL;
    const Py_ssize_t count = PyTuple_GET_SIZE(items);
    Py_ssize_t held = 0;
    Py_buffer *buffers = PyMem_Calloc((size_t)count + 1, sizeof *buffers);
    uint64_t *states = PyMem_Calloc((size_t)count + 1, sizeof *states);
    if (buffers == NULL || states == NULL) {
        PyErr_NoMemory();
    } else if ((held = take_buffers(items, buffers)) == count) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++)
            states[i] = state = fnv1a64(buffers[i].buf, (size_t)buffers[i].len, state);
        Py_END_ALLOW_THREADS
        result = PyList_New(count);
    }
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(states[i]);
        if (value == NULL)
            Py_CLEAR(result);
        else
            PyList_SET_ITEM(result, i, value);
    }
    release_buffers(buffers, held);
    PyMem_Free(buffers);
    PyMem_Free(states);
    Py_DECREF(items);
    return result;
}

static PyObject *py_fnv1a64_plain(PyObject *module, PyObject *args)
{
    Py_buffer data;
    uint64_t hash;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*", &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    hash = fnv1a64_plain(data.buf, (size_t)data.len, FNV_OFFSET);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLongLong(hash);
}

static PyObject *py_hashes_alone(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(fnv_hashes_alone());
}

#endif
