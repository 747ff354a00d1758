/* Transposed convolutions in fp32, with strides and without dilation.
 *
 * The output pixels whose positions leave the same rest when divided by the stride read the same taps
 * of the filter: they are a convolution of stride 1 with these taps. So there are as many of these as
 * the stride has steps, each with an igemm of its own that writes to pixels which lie apart.
 */
#ifndef PENSTOCK_F32_DECONV_H
#define PENSTOCK_F32_DECONV_H

#include "f32_igemm.h"

/* One of the convolutions; `offset` elements before its first pixel in the output. */
struct pk_f32_deconv_phase {
    struct pk_f32_igemm_task task; /* but for input and output */
    size_t offset;
};

struct pk_f32_deconv_task {
    size_t count;
    const struct pk_f32_deconv_phase *phases;
    const float *input;
    float *output;
};

PK_EXPORT void pk_f32_deconv_run(const struct pk_f32_deconv_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_deconv_kernel(uint32_t isa);
PK_EXPORT void pk_f32_igemm_run(const struct pk_f32_igemm_task *task, const struct pk_pool *pool);

#endif
