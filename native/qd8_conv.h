/* Convolution with int8 weights of images that have been quantized at run time, each by itself as one
 * row of pk_qd8_quantize_run:
 *
 *     output = clamp(float(sum (input - zero_point[image]) * weight) * scale[image] * scale[channel]
 *                    + bias[channel])
 *
 * rounded as in pk_qd8_product. Windows that stay inside of the image are read where it lies. */
#ifndef PENSTOCK_QD8_CONV_H
#define PENSTOCK_QD8_CONV_H

#include "qs8_conv.h"

struct pk_qd8_conv_task {
    struct pk_qs8_conv conv; /* with `dynamic`, and without `flat` and strides of the output */
    const void *packed;
    const void *input; /* of pk_qd8_quantize_run */
    float *output;
    void *scratch; /* of pk_qs8_conv_scratch_size */
    float min, max;
};

/* Weights take pk_qs8_conv_packed_size; `bias` may be NULL. */
PK_EXPORT void pk_qd8_conv_pack(const struct pk_qs8_conv *conv, const int8_t *weights,
                                const float *bias, const float *scale, void *packed);
PK_EXPORT void pk_qd8_conv_run(const struct pk_qd8_conv_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_qd8_conv_kernel(uint32_t isa);
#endif
