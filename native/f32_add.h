/* Sums of two fp32 tensors, with an output range. Made for those of one shape; sizes may turn out to be
 * 1 at run time, and such tensors are broadcast, element by element. */
#ifndef PENSTOCK_F32_ADD_H
#define PENSTOCK_F32_ADD_H

#include "core.h"

#define PK_F32_ADD_DIMENSIONS 6

struct pk_f32_add_task {
    uint32_t isa;
    uint32_t broadcast; /* whether the shapes differ; only then what follows is read */
    size_t shape[PK_F32_ADD_DIMENSIONS]; /* of the output */
    size_t a_steps[PK_F32_ADD_DIMENSIONS], b_steps[PK_F32_ADD_DIMENSIONS]; /* in elements, or 0 */
    size_t count; /* elements of the output */
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
#endif

/* Compilers make vectors of it, of those that the including file is compiled for. */
PK_INLINE void pk_f32_add_elements(const struct pk_f32_add_task *task, size_t begin, size_t end)
{
    const float *a = task->a, *b = task->b;
    float *restrict output = task->output;
    const float min = task->min, max = task->max;
    for (size_t i = begin; i < end; i++) {
        const float sum = a[i] + b[i];
        const float low = sum < min ? min : sum; /* NaN stays */
        output[i] = low > max ? max : low;
    }
}

#endif
