/* The extension: the kernels of the codec, which numpy cannot do fast. This is its only translation unit.
 *
 * Headers are named by role, as in zstd's lib/. Each includes what it uses and compiles alone.
 *
 *   calls_*.h          the functions that Python sees: they parse arguments, check sizes, and release the GIL
 *   fnv*.h             FNV-1a of a buffer, one header for each instruction set; values_checksum.h of a chunk's values
 *   planes.h           byte planes, split and merged together with their filters
 *   runs.h             run-length streams
 *   plane_encode.h     a byte plane to a zstd frame, and all planes of a chunk to frames
 *   plane_decode.h     frames to the values of a chunk
 *   plane_stats.h      statistics of a plane: is it noise, where do its blocks end, do strings repeat (histogram.h)
 *   frame_write.h      headers of frames and blocks; frame_read.h reads frames with libzstd
 *   matches.h          finds matches; matches_write.h writes the blocks that hold them
 *   huffman_*.h        Huffman tables and streams; fse_write.h and bits.h below them
 *   cpu.h              instruction sets
 *
 * A call takes buffers and checks that their sizes go together. What a format error is, and which limits hold, is
 * decided in Python. So is how a plane is encoded, with one exception: planes_encode repeats the choice that
 * planecoder.py makes where nothing has to be tried, so that a whole chunk is one call. A test keeps the two alike:
 * tests/codec/test_encode_as_known.py.
 *
 * Kernels whose output is fixed (FNV, planes, runs, the walk over frames) have a plain Python twin in tests/codec.
 * Kernels that are free in what they write (histogram, blocks, Huffman, FSE, matches) have none: the tests decode their
 * frames with libzstd, and compare the bytes that each instruction set makes.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "calls_encode.h"
#include "calls_fnv.h"
#include "calls_planes.h"
#include "calls_runs.h"
#include "calls_zstd.h"
#include "cpu.h"

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
     "walk_zstd(data) -> (last_start, last_is_skippable, unsized, sized_bytes)"},
    {"decompress_zstd", py_decompress_zstd, METH_VARARGS, "decompress_zstd(data, out): fill the output exactly"},
    {"instruction_sets", py_instruction_sets, METH_NOARGS,
     "instruction_sets() -> tuple[str, ...]: those that this processor has, the best one last"},
    {"use_instruction_set", py_use_instruction_set, METH_VARARGS,
     "use_instruction_set(name): run the kernels of this one from now on, in all threads"},
    {"code_plane", py_code_plane, METH_VARARGS,
     "code_plane(plane, room, singles_below, matches_from, matches_in_noise_from, exact=False)"
     " -> (frame of single bytes, frame with matches, equal, chance, repeats, ends)"},
    {"encode_planes", py_encode_planes, METH_VARARGS,
     "encode_planes(raws, prefix, scratch, width, checksum_at, longest, swapped, by_repeats, by_matches, repeats_limit,"
     " verified)\n-> list[(bytes, verified, hashed)], which ends before a chunk that needs a trial or is longer"},
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
