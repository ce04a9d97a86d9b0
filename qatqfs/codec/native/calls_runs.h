/* Calls for run-length streams. */
#ifndef QATQFS_CALLS_RUNS_H
#define QATQFS_CALLS_RUNS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "runs.h"

static PyObject *py_decode_runs(PyObject *module, PyObject *args)
{
    Py_buffer data, out;
    int unit, max_token, ok = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*ii", &data, &out, &unit, &max_token))
        return NULL;
    if (unit >= 1 && unit <= 8 && out.len % unit == 0 && (max_token < RUN_REPEAT || unit == 1)) {
        Py_BEGIN_ALLOW_THREADS
        ok = decode_runs(data.buf, (size_t)data.len, out.buf, (size_t)out.len, (size_t)unit, max_token);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return PyBool_FromLong(ok);
}

static PyObject *py_decode_packed_runs(PyObject *module, PyObject *args)
{
    Py_buffer data, out;
    int ok;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &data, &out))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ok = decode_packed_runs(data.buf, (size_t)data.len, out.buf, (size_t)out.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return PyBool_FromLong(ok);
}

/* Return the stream as bytes, or None if it is longer than the limit. */
static PyObject *runs_object(PyObject *args, const struct run_form *form)
{
    Py_buffer data;
    Py_ssize_t limit = PY_SSIZE_T_MAX;
    if (!PyArg_ParseTuple(args, "y*|n", &data, &limit))
        return NULL;
    PyObject *result = NULL;
    if (limit < 0 || (size_t)data.len % form->unit != 0) {
        PyErr_SetString(PyExc_ValueError, "the limit must not be negative, and the data must be whole units");
    } else {
        size_t size, made;
        Py_BEGIN_ALLOW_THREADS
        size = encode_runs(data.buf, (size_t)data.len, form, NULL, (size_t)limit);
        Py_END_ALLOW_THREADS
        if (size > (size_t)limit) {
            result = Py_NewRef(Py_None);
        } else if ((result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size)) != NULL) {
            uint8_t *out = (uint8_t *)PyBytes_AS_STRING(result);
            Py_BEGIN_ALLOW_THREADS
            made = encode_runs(data.buf, (size_t)data.len, form, out, size);
            Py_END_ALLOW_THREADS
            if (made != size) {
                PyErr_SetString(PyExc_RuntimeError, "the data was changed while it was encoded");
                Py_CLEAR(result);
            }
        }
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *py_encode_runs(PyObject *module, PyObject *args)
{
    (void)module;
    return runs_object(args, &BYTE_RUN_FORM);
}

static PyObject *py_encode_packed_runs(PyObject *module, PyObject *args)
{
    (void)module;
    return runs_object(args, &PACKED_RUN_FORM);
}

static PyObject *py_encode_word_runs(PyObject *module, PyObject *args)
{
    (void)module;
    return runs_object(args, &WORD_RUN_FORM);
}

#endif
