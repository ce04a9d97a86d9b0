/* FNV-1a 64 (format section 1.3): h = (h xor byte) * prime, starting from the offset basis.
 *
 * The plain loop waits for each multiplication. So four buffers in one loop take hardly longer than one. A single
 * buffer can be vectorised with AVX2 and better (fnv_avx2.h, fnv_avx512.h, fnv_avx512_gfni.h).
 */
#ifndef QATQFS_FNV_H
#define QATQFS_FNV_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "fnv_avx2.h"
#include "fnv_avx512.h"
#include "fnv_avx512_gfni.h"
#include "fnv_plain.h"

typedef struct {
    uint64_t (*hash)(const uint8_t *data, size_t blocks, uint64_t hash); /* of whole blocks */
    size_t block;                                                        /* bytes of a block */
} fnv_kernel;

/* The kernel of each instruction set. Where there is none, the plain loop is used. */
static const fnv_kernel fnv_kernels[INSTRUCTION_SETS] = {
    {NULL, 1},
#if defined(__x86_64__) && defined(__GNUC__)
    {fnv1a64_lanes, LANES_BLOCK},
    {fnv1a64_avx512, FNV_BLOCK},
    {fnv1a64_avx512_gfni, FNV_BLOCK},
#endif
};

/* Whether hashing one buffer alone is as fast as hashing it together with three others. All kernels are. */
static int fnv_hashes_alone(void)
{
    return fnv_kernels[instruction_set].hash != NULL;
}

static void fnv_init(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    fnv_x86_init();
    fnv_gfni_init();
    fnv_lanes_init();
#endif
}

static uint64_t fnv1a64(const uint8_t *data, size_t size, uint64_t hash)
{
    const fnv_kernel *kernel = &fnv_kernels[instruction_set];
    size_t blocks = kernel->hash == NULL ? 0 : size / kernel->block, done = blocks * kernel->block;
    if (blocks > 0)
        hash = kernel->hash(data, blocks, hash);
    return fnv1a64_plain(data + done, size - done, hash);
}

/* Hash four buffers of any sizes, 0 for absent ones. `states` holds where to start, and gets the results. */
static void fnv1a64_four(const uint8_t *const data[4], const size_t sizes[4], uint64_t states[4])
{
    size_t common = fnv_hashes_alone() ? 0 : sizes[0];
    for (int k = 1; k < 4; k++)
        if (sizes[k] < common)
            common = sizes[k];
    uint64_t a = states[0], b = states[1], c = states[2], d = states[3];
    for (size_t i = 0; i < common; i++) {
        a = (a ^ data[0][i]) * FNV_PRIME;
        b = (b ^ data[1][i]) * FNV_PRIME;
        c = (c ^ data[2][i]) * FNV_PRIME;
        d = (d ^ data[3][i]) * FNV_PRIME;
    }
    states[0] = a, states[1] = b, states[2] = c, states[3] = d;
    for (int k = 0; k < 4; k++)
        if (sizes[k] > common)
            states[k] = fnv1a64(data[k] + common, sizes[k] - common, states[k]);
}

#endif
