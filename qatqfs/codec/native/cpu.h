/* The instruction sets that kernels are compiled for, and which of them this processor has.
 *
 * A kernel in plain C is an ALWAYS_INLINE body. Each instruction set has a copy of it, whose target attribute tells the
 * compiler how it may vectorise. A kernel finds its copy in a table indexed by `instruction_set`.
 */
#ifndef QATQFS_CPU_H
#define QATQFS_CPU_H

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "qatqfs works on little-endian machines only"
#endif

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

enum { SET_PORTABLE, SET_AVX2, SET_AVX512, SET_AVX512_GFNI, INSTRUCTION_SETS };

#if defined(__x86_64__) && defined(__GNUC__)
#define FOR_EACH_INSTRUCTION_SET(MACRO)                                                                                \
    MACRO(portable, )                                                                                                  \
    MACRO(avx2, __attribute__((target("avx2,bmi,bmi2"))))                                                              \
    MACRO(avx512, __attribute__((target("bmi,bmi2,avx512f,avx512bw,avx512vl,prefer-vector-width=512"))))               \
    MACRO(avx512_gfni, __attribute__((target("bmi,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,prefer-vector-width=512"))))
#else
#define FOR_EACH_INSTRUCTION_SET(MACRO) MACRO(portable, )
#endif

static const char *const instruction_set_names[INSTRUCTION_SETS] = {"portable", "avx2", "avx512", "avx512_gfni"};

/* The best set of this processor, and the one in use, which only tests change. Both are written with the GIL held. */
static int best_instruction_set = SET_PORTABLE;
static int instruction_set = SET_PORTABLE;

static void cpu_init(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
        best_instruction_set = SET_AVX2;
    if (best_instruction_set == SET_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        best_instruction_set = SET_AVX512;
    if (best_instruction_set == SET_AVX512 && __builtin_cpu_supports("gfni") && __builtin_cpu_supports("vpclmulqdq") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni"))
        best_instruction_set = SET_AVX512_GFNI; /* Intel since Ice Lake, AMD since Zen 4 */
#endif
    instruction_set = best_instruction_set;
}

#endif
