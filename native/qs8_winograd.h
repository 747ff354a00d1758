/* int8 convolution of 3x3 kernels with stride 1 by Winograd's algorithms, for instruction sets that
 * multiply int16 and not int8: 16 products for four outputs (F(2x2, 3x3)) or 25 for nine (F(3x3, 3x3))
 * in place of 36 and 81.
 *
 * They are exact. Of F(2x2, 3x3) the transform of the input needs 11 bits; that of the weights, scaled
 * by 4 so that no halves occur, 12 bits; the sums that come back are four times the true ones, modulo
 * 2^32, and the true ones are bounded so that these fit. Of F(3x3, 3x3) the transforms are below 4609
 * and 10369, so that their sums fit 16 bits too, and the weights' scale is 36: the division by 9 is
 * exact modulo 2^32, and leaves four times the true sum.
 */
#ifndef PENSTOCK_QS8_WINOGRAD_H
#define PENSTOCK_QS8_WINOGRAD_H

#include "qs8_parts.h"

/* Beyond so many input channels four times a sum could leave 32 bits:
 * 4 * 9 * 128 * 128 * 3584 < 2^31 (the input is taken without its zero point). */
#define PK_WINOGRAD_CHANNELS 3584

/* Whether it can do `conv` at some size of its input. */
int pk_qs8_winograd_can(const struct pk_qs8_conv *conv);
/* The own products of the channels (qs8_multiply_avx2.h), for each output of a tile. */
void pk_qs8_winograd_pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l,
                              void *packed);
/* Whether it can do `conv`, and is worth the transforms. */
int pk_qs8_winograd_suits(const struct pk_qs8_conv *conv);
size_t pk_qs8_winograd_scratch_size(const struct pk_qs8_conv *conv);
/* The packed weights are those of pk_qs8_conv_pack for AVX2. */
void pk_qs8_winograd_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool);

/* What the two have. */
struct pk_qs8_winograd {
    size_t (*scratch_size)(const struct pk_qs8_conv *conv);
    void (*run)(const struct pk_qs8_conv_task *task, const struct pk_pool *pool);
    void (*pack_own)(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l, void *packed);
};

extern const struct pk_qs8_winograd pk_qs8_winograd_two, pk_qs8_winograd_three;

/* Tiles of `out` outputs, `dilation` apart, along a side of the image. */
static inline size_t pk_qs8_tiles_along(size_t out, size_t outputs, size_t dilation)
{
    return pk_divide_up(outputs, out * dilation) * dilation;
}
#endif
