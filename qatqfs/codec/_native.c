/* The module of the codec's kernels: what numpy cannot do fast, which is FNV-1a (_fnv.h), byte planes with their
 * filters (_planes.h), what they hold and how it is coded (_stats.h; its calls are in _plane_calls.h), run-length streams
 * (_runs.h) and the headers of zstd frames (_zstd.h).
 *
 * Policy (what to try, what is an error, which limits hold) stays in Python; a kernel takes buffers whose
 * sizes were checked and says whether its input made sense. Each has a plain Python twin in tests/codec that
 * serves as its oracle. The GIL is released for whatever takes longer than giving it up.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_buffers.h"
#include "_cpu.h"
#include "_fnv.h"
#include "_plane_calls.h"
#include "_runs.h"
#include "_zstd.h"

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

/* The state behind each of several buffers that follow one another. */
static PyObject *py_fnv1a64_chain(PyObject *module, PyObject *args)
{
    PyObject *sequence, *result = NULL;
    unsigned long long state;
    (void)module;
    if (!PyArg_ParseTuple(args, "OK", &sequence, &state))
        return NULL;
    PyObject *items = PySequence_Tuple(sequence); /* nobody can shorten it while the GIL is released */
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

/* ---- run-length streams ---------------------------------------------------------------------------------- */

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

/* Return the stream as bytes, or None when it is longer than the limit. */
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

/* ---- the frames of zstd data ------------------------------------------------------------------------------ */

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

/* ---- which instruction set is used --------------------------------------------------------------------- */

static PyObject *py_instruction_sets(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *result = PyTuple_New(best_instruction_set + 1);
    for (int i = 0; result != NULL && i <= best_instruction_set; i++) {
        PyObject *name = PyUnicode_FromString(instruction_set_names[i]);
        if (name == NULL)
            Py_CLEAR(result);
        else
            PyTuple_SET_ITEM(result, i, name);
    }
    return result;
}

static PyObject *py_use_instruction_set(PyObject *module, PyObject *args)
{
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    for (int i = 0; i <= best_instruction_set; i++)
        if (strcmp(name, instruction_set_names[i]) == 0) {
            instruction_set = i;
            Py_RETURN_NONE;
        }
    PyErr_Format(PyExc_ValueError, "this processor has no instruction set \"%s\"", name);
    return NULL;
}

static PyMethodDef methods[] = {
    {"fnv1a64", (PyCFunction)(void (*)(void))py_fnv1a64, METH_VARARGS | METH_KEYWORDS,
     "fnv1a64(data, state=offset_basis) -> int"},
    {"fnv1a64_many", py_fnv1a64_many, METH_O, "fnv1a64_many(buffers) -> list[int]"},
    {"fnv1a64_chain", py_fnv1a64_chain, METH_VARARGS,
     "fnv1a64_chain(buffers, state) -> list[int]: the state behind each of buffers that follow one another"},
    {"fnv1a64_plain", py_fnv1a64_plain, METH_VARARGS, "fnv1a64_plain(data) -> int: the same by the plain loop"},
    {"hashes_alone", py_hashes_alone, METH_NOARGS,
     "hashes_alone() -> bool: one buffer is hashed no slower than each of four in one loop"},
    {"split_planes", py_split_planes, METH_VARARGS, "split_planes(raw, planes, width, filter=0, stride=1)"},
    {"merge_planes", py_merge_planes, METH_VARARGS, "merge_planes(planes, raw, width, filter=0, stride=1)"},
    {"swap_elements", py_swap_elements, METH_VARARGS, "swap_elements(source, target, width)"},
    {"decode_runs", py_decode_runs, METH_VARARGS, "decode_runs(data, out, unit, max_token) -> bool"},
    {"decode_packed_runs", py_decode_packed_runs, METH_VARARGS, "decode_packed_runs(data, out) -> bool"},
    {"encode_runs", py_encode_runs, METH_VARARGS, "encode_runs(data, limit=no limit) -> bytes | None"},
    {"encode_packed_runs", py_encode_packed_runs, METH_VARARGS, "encode_packed_runs(data, limit=no limit)"},
    {"encode_word_runs", py_encode_word_runs, METH_VARARGS, "encode_word_runs(data, limit=no limit)"},
    {"walk_zstd", py_walk_zstd, METH_VARARGS,
     "walk_zstd(data, window_limit) -> (frames, last_start, last_is_skippable, unsized, sized_bytes, wide)"},
    {"zstd_frame", py_zstd_frame, METH_VARARGS, "zstd_frame(data, start) -> (stop, content size or None)"},
    {"narrow_zstd", py_narrow_zstd, METH_VARARGS,
     "narrow_zstd(data, window_limit): cut down the windows that walk_zstd calls wide"},
    {"instruction_sets", py_instruction_sets, METH_NOARGS,
     "instruction_sets() -> tuple[str, ...]: those that this processor has, the best one last"},
    {"use_instruction_set", py_use_instruction_set, METH_VARARGS,
     "use_instruction_set(name): run the kernels of this one from now on, in all threads"},
    {"code_plane", py_code_plane, METH_VARARGS,
     "code_plane(plane, room, singles_below, matches_from, matches_in_noise_from, exact=False)"
     " -> (frame of single bytes, frame with matches, equal, chance, repeats, ends)"},
    {"encode_planes", py_encode_planes, METH_VARARGS,
     "encode_planes(raws, prefix, scratch, width, checksum_at, longest, swapped, by_repeats, by_matches, repeats_limit,"
     " verified)\n-> list[(bytes, verified, hashed)], shorter than raws where one needs a trial or is longer than that"},
    {"frames_hold", py_frames_hold, METH_VARARGS,
     "frames_hold(frames, raw, scratch, width) -> bool: what encode_planes verifies"},
    {"decode_planes", py_decode_planes, METH_VARARGS,
     "decode_planes(frames, scratch, out, width, filter, stride, swapped) -> checksum of the values, or None"},
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
    cpu_init();
    fnv_init();
    return PyModuleDef_Init(&definition);
}
