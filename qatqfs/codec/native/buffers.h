/* Buffers of several objects, held together. */
#ifndef QATQFS_BUFFERS_H
#define QATQFS_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Take buffers of all items; the number of those taken, fewer than there are with an error set. */
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
