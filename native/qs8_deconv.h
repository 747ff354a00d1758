/* Transposed convolutions in int8 with static quantization, with strides and without dilation: as
 * f32_deconv.h has it, a convolution of stride 1 for each step of the strides. */
#ifndef PENSTOCK_QS8_DECONV_H
#define PENSTOCK_QS8_DECONV_H

#include "qs8_conv.h"

/* One of the convolutions; `offset` elements before its first pixel in the output. */
struct pk_qs8_deconv_phase {
    struct pk_qs8_conv conv;
    const void *packed;
    size_t offset;
};

struct pk_qs8_deconv_task {
    size_t count;
    const struct pk_qs8_deconv_phase *phases;
    const int8_t *input;
    int8_t *output;
    void *scratch; /* of the phase that needs the most */
};

/* May read up to PK_OVERREAD bytes beyond the input. */
PK_EXPORT void pk_qs8_deconv_run(const struct pk_qs8_deconv_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_qs8_deconv_kernel(uint32_t isa);

#endif
