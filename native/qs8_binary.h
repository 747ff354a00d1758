/* Sums and products of two int8 tensors, each with a scale and zero point of its own, with
 * XNNPACK's arithmetic: sums by integer multipliers and a shift, products by a float factor.
 */
#ifndef PENSTOCK_QS8_BINARY_H
#define PENSTOCK_QS8_BINARY_H

#include "core.h"

#define PK_BINARY_DIMS 6

/* (bias + a * a_multiplier + b * b_multiplier) >> shift, or (a - a_zero_point) * (b - b_zero_point)
 * * scale, rounded; then the output's zero point and range. */
struct pk_qs8_binary_params {
    uint32_t product;
    int32_t bias, a_multiplier, b_multiplier, shift;
    int32_t a_zero_point, b_zero_point;
    float scale;
    int32_t zero_point, min, max;
};

/* The output has the sizes `size`, outermost first, and is contiguous; a and b have these steps, in
 * elements. The steps of the innermost dimension are 1, or 0 for an operand that is the same. */
struct pk_qs8_binary_task {
    uint32_t isa;
    struct pk_qs8_binary_params params;
    size_t size[PK_BINARY_DIMS], a_step[PK_BINARY_DIMS], b_step[PK_BINARY_DIMS];
    size_t threads;
    const int8_t *a, *b;
    int8_t *output;
};

/* One line: `a_step` and `b_step` are 0 or 1. */
typedef void (*pk_qs8_binary_line)(const struct pk_qs8_binary_params *params, const int8_t *a,
                                   const int8_t *b, size_t a_step, size_t b_step, size_t count,
                                   int8_t *output);

void pk_qs8_binary_scalar(const struct pk_qs8_binary_params *params, const int8_t *a,
                          const int8_t *b, size_t a_step, size_t b_step, size_t count,
                          int8_t *output);
#if PK_X86
void pk_qs8_binary_avx2(const struct pk_qs8_binary_params *params, const int8_t *a,
                        const int8_t *b, size_t a_step, size_t b_step, size_t count,
                        int8_t *output);
void pk_qs8_binary_avx512(const struct pk_qs8_binary_params *params, const int8_t *a,
                          const int8_t *b, size_t a_step, size_t b_step, size_t count,
                          int8_t *output);
#elif PK_ARM
void pk_qs8_binary_neon(const struct pk_qs8_binary_params *params, const int8_t *a,
                        const int8_t *b, size_t a_step, size_t b_step, size_t count,
                        int8_t *output);
#endif

PK_EXPORT void pk_qs8_binary_run(const struct pk_qs8_binary_task *task,
                                 const struct pk_pool *pool);
PK_EXPORT const char *pk_qs8_binary_kernel(uint32_t isa);
#endif
