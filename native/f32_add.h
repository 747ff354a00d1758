/* Sums and products of two fp32 tensors, with an output range. Made for those of one shape, and for a
 * second one that repeats in each row of the first; sizes may turn out to be 1 at run time, and such
 * tensors are broadcast, element by element. */
#ifndef PENSTOCK_F32_ADD_H
#define PENSTOCK_F32_ADD_H

#include "core.h"

#define PK_F32_ADD_DIMENSIONS 6

struct pk_f32_add_task {
    uint32_t isa;
    uint32_t multiply; /* else add */
    uint32_t broadcast; /* whether the shapes differ; only then what follows is read */
    size_t shape[PK_F32_ADD_DIMENSIONS]; /* of the output */
    size_t a_steps[PK_F32_ADD_DIMENSIONS], b_steps[PK_F32_ADD_DIMENSIONS]; /* in elements, or 0 */
    size_t count; /* elements of the output */
    size_t row; /* elements of `b`, which repeats; 0 if it has as many as `a` (without `broadcast`) */
    const float *a, *b;
    float *output;
    float min, max;
};

struct pk_f32_add_kernel {
    const char *name;
    /* Elements `begin` to `end`. */
    void (*run)(const struct pk_f32_add_task *task, size_t begin, size_t end);
};

extern const struct pk_f32_add_kernel pk_f32_add_scalar;
#if PK_X86
extern const struct pk_f32_add_kernel pk_f32_add_avx2, pk_f32_add_avx512;
#elif PK_ARM
extern const struct pk_f32_add_kernel pk_f32_add_neon;
#endif

PK_INLINE float pk_f32_add_one(float a, float b, float min, float max, const int multiply)
{
    const float found = multiply ? a * b : a + b;
    const float low = found < min ? min : found; /* NaN stays */
    return low > max ? max : low;
}

/* Each element depends on those of its place alone: `output` may be `a` or `b`. */
#if defined(__clang__)
#define PK_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define PK_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* Compilers make vectors of it, of those that the including file is compiled for. */
PK_INLINE void pk_f32_add_rows(const struct pk_f32_add_task *task, size_t begin, size_t end,
                               const int multiply)
{
    const float min = task->min, max = task->max;
    while (begin < end) {
        const size_t first = task->row ? begin % task->row : begin;
        const size_t count = task->row ? pk_min(task->row - first, end - begin) : end - begin;
        const float *a = task->a + begin, *b = task->b + first;
        float *output = task->output + begin;
        PK_INDEPENDENT
        for (size_t i = 0; i < count; i++)
            output[i] = pk_f32_add_one(a[i], b[i], min, max, multiply);
        begin += count;
    }
}

PK_INLINE void pk_f32_add_elements(const struct pk_f32_add_task *task, size_t begin, size_t end)
{
    if (task->multiply)
        pk_f32_add_rows(task, begin, end, 1);
    else
        pk_f32_add_rows(task, begin, end, 0);
}

#endif
