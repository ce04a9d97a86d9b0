/* Kernels of the codec that numpy cannot do fast: FNV-1a, byte-plane split and merge, run-length streams.
 *
 * Policy (what to try, what is an error, which limits hold) stays in Python; a kernel takes buffers whose
 * sizes were checked and says whether its input made sense. Each has a plain Python twin in tests/codec that
 * serves as its oracle. The GIL is released for whatever takes longer than giving it up.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_fnv.h"
#include "_stats.h"

#define RELEASE_GIL_ABOVE 4096 /* bytes; below it the work is shorter than a hand-over of the GIL */

/* ---- FNV-1a ------------------------------------------------------------------------------------------ */

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

static PyObject *py_fnv1a64_kernels(PyObject *module, PyObject *args)
{
    Py_buffer data;
    unsigned long long state;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*K", &data, &state))
        return NULL;
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < fnv_choice_count; i++) {
        uint64_t hash = fnv1a64_using(fnv_choices[i].blocks, data.buf, (size_t)data.len, state);
        PyObject *value = PyLong_FromUnsignedLongLong(hash);
        if (value == NULL || PyDict_SetItemString(result, fnv_choices[i].name, value) < 0)
            Py_CLEAR(result);
        Py_XDECREF(value);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *py_fnv1a64_many(PyObject *module, PyObject *arg)
{
    (void)module;
    PyObject *items = PySequence_Tuple(arg); /* nobody can shorten it while the GIL is released */
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

/* ---- byte planes (format section 1.2): plane p holds byte p of every element, most significant first ----- */

static void split16(const uint8_t *restrict raw, uint8_t *restrict planes, size_t n)
{
    uint8_t *restrict high = planes, *restrict low = planes + n;
    for (size_t i = 0; i < n; i++) {
        low[i] = raw[2 * i];
        high[i] = raw[2 * i + 1];
    }
}

static void merge16(const uint8_t *restrict planes, uint8_t *restrict raw, size_t n)
{
    const uint8_t *restrict high = planes, *restrict low = planes + n;
    for (size_t i = 0; i < n; i++) {
        raw[2 * i] = low[i];
        raw[2 * i + 1] = high[i];
    }
}

static void split32(const uint8_t *restrict raw, uint8_t *restrict planes, size_t n)
{
    uint8_t *restrict a = planes, *restrict b = planes + n, *restrict c = planes + 2 * n, *restrict d = planes + 3 * n;
    for (size_t i = 0; i < n; i++) {
        d[i] = raw[4 * i];
        c[i] = raw[4 * i + 1];
        b[i] = raw[4 * i + 2];
        a[i] = raw[4 * i + 3];
    }
}

static void merge32(const uint8_t *restrict planes, uint8_t *restrict raw, size_t n)
{
    const uint8_t *restrict a = planes, *restrict b = planes + n, *restrict c = planes + 2 * n,
                           *restrict d = planes + 3 * n;
    for (size_t i = 0; i < n; i++) {
        raw[4 * i] = d[i];
        raw[4 * i + 1] = c[i];
        raw[4 * i + 2] = b[i];
        raw[4 * i + 3] = a[i];
    }
}

static PyObject *transform_planes(PyObject *args, int splitting)
{
    Py_buffer from, to;
    int width;
    if (!PyArg_ParseTuple(args, "y*w*i", &from, &to, &width))
        return NULL;
    int bad = from.len != to.len || (width != 2 && width != 4) || from.len % width != 0;
    if (bad) {
        PyErr_SetString(PyExc_ValueError, "buffers must be equally long, and a multiple of the width 2 or 4");
    } else {
        size_t n = (size_t)from.len / (size_t)width;
        Py_BEGIN_ALLOW_THREADS
        if (width == 2)
            (splitting ? split16 : merge16)(from.buf, to.buf, n);
        else
            (splitting ? split32 : merge32)(from.buf, to.buf, n);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (bad)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_split_planes(PyObject *module, PyObject *args)
{
    (void)module;
    return transform_planes(args, 1);
}

static PyObject *py_merge_planes(PyObject *module, PyObject *args)
{
    (void)module;
    return transform_planes(args, 0);
}

/* ---- run-length streams (format sections 4.2, 4.4 and 4.8) ------------------------------------------------ */

/* Decode `token u8 | len u16 | operand` runs of `unit`-byte words; 1 when data gives exactly `want` bytes. */
static int decode_runs(const uint8_t *data, size_t size, uint8_t *out, size_t want, size_t unit, int max_token)
{
    size_t at = 0, made = 0;
    while (made < want) {
        if (size - at < 3)
            return 0;
        int token = data[at];
        size_t run = ((size_t)data[at + 1] << 8 | data[at + 2]) * unit;
        at += 3;
        if (run == 0 || run > want - made || token > max_token)
            return 0;
        if (token == 0) {
            memset(out + made, 0, run);
        } else if (token == 1) {
            if (run > size - at)
                return 0;
            memcpy(out + made, data + at, run);
            at += run;
        } else {
            if (at == size)
                return 0;
            memset(out + made, data[at++], run);
        }
        made += run;
    }
    return at == size;
}

/* Decode runs whose token byte holds a 2-bit tag and a length of 1..64; 1 when data gives exactly `want` bytes. */
static int decode_packed_runs(const uint8_t *data, size_t size, uint8_t *out, size_t want)
{
    size_t at = 0, made = 0;
    while (made < want) {
        if (at == size)
            return 0;
        int tag = data[at] >> 6;
        size_t run = (size_t)(data[at++] & 0x3f) + 1;
        if (run > want - made || tag == 3)
            return 0;
        if (tag == 0) {
            memset(out + made, 0, run);
        } else if (tag == 1) {
            if (run > size - at)
                return 0;
            memcpy(out + made, data + at, run);
            at += run;
        } else {
            if (at == size)
                return 0;
            memset(out + made, data[at++], run);
        }
        made += run;
    }
    return at == size;
}

static PyObject *py_decode_runs(PyObject *module, PyObject *args)
{
    Py_buffer data, out;
    int unit, max_token, ok = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*ii", &data, &out, &unit, &max_token))
        return NULL;
    if (unit >= 1 && unit <= 8 && out.len % unit == 0 && (max_token < 2 || unit == 1)) {
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

/* ---- byte planes coded, and statistics of them ---------------------------------------------------------- */

static PyObject *py_code_plane(PyObject *module, PyObject *args)
{
    Py_buffer data, room;
    plane_stats stats = {0};
    PyObject *ends = NULL, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*ddd", &data, &room, &stats.singles_below, &stats.matches_from,
                          &stats.matches_in_noise_from))
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

static PyMethodDef methods[] = {
    {"fnv1a64", (PyCFunction)(void (*)(void))py_fnv1a64, METH_VARARGS | METH_KEYWORDS,
     "fnv1a64(data, state=offset_basis) -> int"},
    {"fnv1a64_kernels", py_fnv1a64_kernels, METH_VARARGS,
     "fnv1a64_kernels(data, state) -> dict[str, int]: the result of each kernel that this processor can run"},
    {"fnv1a64_many", py_fnv1a64_many, METH_O, "fnv1a64_many(buffers) -> list[int]"},
    {"split_planes", py_split_planes, METH_VARARGS, "split_planes(raw, planes, width)"},
    {"merge_planes", py_merge_planes, METH_VARARGS, "merge_planes(planes, raw, width)"},
    {"decode_runs", py_decode_runs, METH_VARARGS, "decode_runs(data, out, unit, max_token) -> bool"},
    {"decode_packed_runs", py_decode_packed_runs, METH_VARARGS, "decode_packed_runs(data, out) -> bool"},
    {"code_plane", py_code_plane, METH_VARARGS,
     "code_plane(plane, room, singles_below, matches_from, matches_in_noise_from)"
     " -> (frame of single bytes, frame with matches, equal, chance, repeats, ends)"},
    {"equal_at_lags", py_equal_at_lags, METH_VARARGS,
     "equal_at_lags(data, lags) -> for each lag, 0 to lags, a native u32: bytes of data[lags:] that equal one before"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "qatqfs.codec._native",
    .m_doc = "Kernels of the codec; see _native.pyi.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    fnv_init();
    return PyModuleDef_Init(&definition);
}
