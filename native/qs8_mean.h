/* Means over the pixels of int8 images (NHWC), as XNNPACK computes them:
 *
 *     output = clamp(round(float(sum of the pixels) * scale + zero_point))
 *
 * where the product is rounded before zero_point, which takes the input's with it, is added. */
#ifndef PENSTOCK_QS8_MEAN_H
#define PENSTOCK_QS8_MEAN_H

#include "core.h"

struct pk_qs8_mean_task {
    uint32_t isa;
    float scale, zero_point; /* |sum * scale + zero_point| is less than 2^30 */
    size_t images, pixels, channels, threads;
    const int8_t *input;
    int8_t *output;
};

/* What each instruction set implements. */
struct pk_qs8_mean_kernel {
    const char *name;
    /* The sums of `pixels` values, `stride` bytes apart, of each of `channels` channels, which are
     * PK_QS8_MEAN_BLOCK at most. May read up to PK_OVERREAD bytes beyond the last one. What stands in
     * `to` beyond `channels` does not matter. */
    void (*sums)(int32_t to[], const int8_t *from, size_t pixels, size_t stride, size_t channels);
};

extern const struct pk_qs8_mean_kernel pk_qs8_mean_scalar;
#if PK_X86
extern const struct pk_qs8_mean_kernel pk_qs8_mean_avx2, pk_qs8_mean_avx512;
#elif PK_ARM
extern const struct pk_qs8_mean_kernel pk_qs8_mean_neon;
#endif

/* As many int8 as an int16 holds the sum of. */
#define PK_QS8_MEAN_RUN 256
#define PK_QS8_MEAN_BLOCK 128

#endif
