/* What all kernels share: the types that Python hands over, and how work is spread over threads.
 *
 * Rules of this folder: C11, no state that changes after loading, no allocation, no system calls;
 * memcpy and memset are all that is used of libc (and, on ARM, what asks the system for the
 * processor's features). Sizes have been checked before they come here.
 * Kernels are safe for concurrent calls: what they write lies in their outputs or in scratch memory
 * that comes with the call.
 */
#ifndef PENSTOCK_CORE_H
#define PENSTOCK_CORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#define PK_X86 1
#else
#define PK_X86 0
#endif
#if defined(__aarch64__)
#define PK_ARM 1
#else
#define PK_ARM 0
#endif

#define PK_EXPORT __attribute__((visibility("default")))
#define PK_INLINE static inline __attribute__((always_inline))

/* Changes with every change of a structure or a function that Python sees. */
#define PK_ABI_VERSION 19

/* Instruction sets, one bit each. A mask has the bits of all that may be used: they are no chain (a
 * processor may have AVX-512 without AVX-VNNI, and the reverse). */
enum pk_isa {
    PK_ISA_SCALAR = 1u << 0,
    PK_ISA_AVX2 = 1u << 1,       /* with FMA and F16C */
    PK_ISA_AVXVNNI = 1u << 2,    /* AVX-VNNI, beside AVX2 */
    PK_ISA_AVX512 = 1u << 3,     /* F, BW, DQ, VL */
    PK_ISA_AVX512VNNI = 1u << 4, /* beside AVX512 */
    PK_ISA_AVX512VBMI = 1u << 5, /* beside AVX512 */
    PK_ISA_NEON = 1u << 6,       /* with FMA in fp32: every 64-bit ARM */
    PK_ISA_DOTPROD = 1u << 7,    /* SDOT */
    PK_ISA_I8MM = 1u << 8,       /* SMMLA */
};

/* Bytes that kernels may read beyond the end of an input (never write), as XNNPACK does. */
#define PK_OVERREAD 16

/* Alignment of packed weights and of scratch memory: a cache line. */
#define PK_ALIGNMENT 64

/* pthreadpool's: denormals count as zeros, as they do in XNNPACK. */
#define PK_FLAG_DISABLE_DENORMALS 1u

/* A thread pool: `parallelize` has the signature of pthreadpool_parallelize_1d, which takes NULL as
 * `handle` for the caller's thread. `threads` is the number of threads of the pool. */
struct pk_pool {
    void *handle;
    void (*parallelize)(void *handle, void (*task)(void *context, size_t index), void *context,
                        size_t range, uint32_t flags);
    size_t threads;
};

/* Calls task(context, i) for all i below `range`, in any order and on any thread of the pool. */
static inline void pk_parallelize(const struct pk_pool *pool, void (*task)(void *, size_t),
                                  void *context, size_t range)
{
    if (pool && pool->parallelize) {
        pool->parallelize(pool->handle, task, context, range, PK_FLAG_DISABLE_DENORMALS);
        return;
    }
    for (size_t i = 0; i < range; i++)
        task(context, i);
}

static inline size_t pk_threads(const struct pk_pool *pool)
{
    return pool && pool->handle && pool->threads ? pool->threads : 1;
}

static inline size_t pk_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t pk_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline size_t pk_divide_up(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

static inline size_t pk_round_up(size_t n, size_t to)
{
    return pk_divide_up(n, to) * to;
}

/* Where part `index` of `parts` alike begins among `count`: at a multiple of `unit`, which is less
 * than a part; index `parts` is the end. A part is at most divide_up(count, parts) long, and if `unit`
 * is not 1 so much more. */
static inline size_t pk_part_begin(size_t count, size_t parts, size_t unit, size_t index)
{
    return index == parts ? count : (count * index / parts + unit / 2) / unit * unit;
}

/* Sizes of the caches of one core in bytes (level 3: of all cores), 0 for unknown. */
struct pk_caches {
    size_t l1, l2, l3;
};

#endif
