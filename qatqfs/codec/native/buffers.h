/* Buffers of several Python objects, taken and released together. */
#ifndef QATQFS_BUFFERS_H
#define QATQFS_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Take the buffers of all items. Returns how many it got; if one fails, these are fewer and an error is set. */
static Py_ssize_t take_buffers(PyObject *tuple, Py_buffer *buffers)
{
    Py_ssize_t held = 0;
    while (held < PyTuple_GET_SIZE(tuple) &&
           PyObject_GetBuffer(PyTuple_GET_ITEM(tuple, held), &buffers[held], PyBUF_SIMPLE) == 0)
        held++;
    return held;
}

static void release_buffers(Py_buffer *buffers, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        PyBuffer_Release(&buffers[i]);
}

#endif
