/* Layer norms over rows of channels in fp32, with the bits of XNNPACK's kernels for the nodes that a file
 * has them as:
 *     y = (x - mean of x) / sqrt(mean of (x - mean of x)^2 + epsilon) * weight + bias
 * A mean is a sum of x[0], x[1], ... times the column's weight, in this order; where there are several
 * parts, of what average pooling leaves of x[k], x[width + k], ...
 * Each operation is rounded by itself but for the sums of products, which are fused.
 */
#ifndef PENSTOCK_F32_LAYER_NORM_H
#define PENSTOCK_F32_LAYER_NORM_H

#include "core.h"

/* The greatest width. */
#define PK_F32_LAYER_NORM_WIDTH 512

/* Of rows of parts * width channels. */
struct pk_f32_row_mean {
    size_t parts, width;
    float column;
};

struct pk_f32_layer_norm_task {
    uint32_t isa;
    float epsilon;
    size_t rows, channels;
    struct pk_f32_row_mean mean, variance;
    const float *weight, *bias; /* [channels]; NULL: there is none */
    const float *input;
    float *output;
};

struct pk_f32_layer_norm_kernels {
    const char *name;
    void (*run)(const struct pk_f32_layer_norm_task *task, size_t begin, size_t end);
};

extern const struct pk_f32_layer_norm_kernels pk_f32_layer_norm_scalar;
#if PK_X86
extern const struct pk_f32_layer_norm_kernels pk_f32_layer_norm_avx2, pk_f32_layer_norm_avx512;
#endif

PK_EXPORT void pk_f32_layer_norm_run(const struct pk_f32_layer_norm_task *task,
                                     const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_layer_norm_kernel(uint32_t isa);
#endif
