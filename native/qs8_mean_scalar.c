/* Means over the pixels of int8 images: sums for any processor. */
#include "qs8_mean.h"

static void sums(int32_t to[], const int8_t *from, size_t pixels, size_t stride, size_t channels)
{
    for (size_t c = 0; c < channels; c++)
        to[c] = 0;
    for (; pixels; pixels--, from += stride)
        for (size_t c = 0; c < channels; c++)
            to[c] += from[c];
}

const struct pk_qs8_mean_kernel pk_qs8_mean_scalar = {"scalar", sums};
