/* Scaled dot-product attention in fp32: softmax(query @ keys * factor + addends) @ values, one head at
 * a time, so that its scores stay in the caches.
 *
 * With AVX2 and AVX-512 each number is made as XNNPACK's kernels for these make it: products are summed
 * up in order, by fused operations, exponentials are the same polynomial, and their sums go by as many
 * lanes. With NEON and without vectors sums are in an order of their own. */
#ifndef PENSTOCK_F32_SDPA_H
#define PENSTOCK_F32_SDPA_H

#include "core.h"

#define PK_F32_SDPA_ADDENDS 2

/* Where an operand lies: elements from one batch, head, row and column to the next. After `period`
 * batches, if that is not 0, it begins anew. */
struct pk_f32_sdpa_operand {
    size_t batch, head, row, column, period;
};

/* query [batches, heads, rows, size] @ keys [.., columns, size], times `factor`, plus each addend
 * [batches, heads, rows, columns]; the softmax of that @ values [.., columns, depth]. Columns of the
 * query and the output lie one after the other; an addend's `column` is 0 or 1, and its address NULL if
 * there is none. */
struct pk_f32_sdpa_task {
    uint32_t isa;
    float factor;
    size_t batches, heads, rows, columns, size, depth, threads;
    struct pk_f32_sdpa_operand query_steps, key_steps, value_steps, output_steps;
    struct pk_f32_sdpa_operand addend_steps[PK_F32_SDPA_ADDENDS];
    const float *query, *keys, *values;
    const float *addends[PK_F32_SDPA_ADDENDS];
    float *output;
    void *scratch;
};

/* Some rows of a head: its place in each operand, and scratch memory. */
struct pk_f32_sdpa_part {
    const struct pk_f32_sdpa_task *task;
    const float *query, *keys, *values;
    const float *addends[PK_F32_SDPA_ADDENDS];
    float *output;
    size_t rows;
    float *scratch;
};

struct pk_f32_sdpa_kernel {
    const char *name;
    void (*attend)(const struct pk_f32_sdpa_part *part);
};

/* Columns are filled up to whole vectors of this size, which all kernels have. */
#define PK_F32_SDPA_COLUMNS 16
/* Rows that are computed together, at most. */
#define PK_F32_SDPA_ROWS 8

extern const struct pk_f32_sdpa_kernel pk_f32_sdpa_scalar;
#if PK_X86
extern const struct pk_f32_sdpa_kernel pk_f32_sdpa_avx2, pk_f32_sdpa_avx512;
#elif PK_ARM
extern const struct pk_f32_sdpa_kernel pk_f32_sdpa_neon;
#endif

PK_EXPORT size_t pk_f32_sdpa_scratch_size(const struct pk_f32_sdpa_task *task);
PK_EXPORT void pk_f32_sdpa_run(const struct pk_f32_sdpa_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_sdpa_kernel(uint32_t isa);
#endif
