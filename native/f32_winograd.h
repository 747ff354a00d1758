/* fp32 convolution by Winograd's F(2x2, 3x3): four outputs of a 3x3 kernel with stride 1 from 16
 * products in place of 36.
 *
 * With d a tile of 4x4 inputs and g the weights of two channels, the 2x2 outputs are
 *
 *     A^T (G g G^T * B^T d B) A
 *
 * where * multiplies element by element. Of the sum over input channels each of the 16 elements is a
 * product of matrices (tiles x input channels x output channels) by the tiles of f32_igemm. Weights
 * stay packed as f32_igemm has them, so that memory does not grow, and a tile whose outputs are not
 * all finite is computed anew by their definition: where an infinity enters, the transforms make NaN.
 */
#ifndef PENSTOCK_F32_WINOGRAD_H
#define PENSTOCK_F32_WINOGRAD_H

#include "f32_igemm.h"

#define PK_F32_WINOGRAD_TAPS 9
#define PK_F32_WINOGRAD_POINTS 16

/* The outputs of one tile and one panel. */
struct pk_f32_winograd_output {
    const float *sums; /* of the first of the 16 elements */
    size_t step;       /* to the next element's, in floats */
    const float *bias;
    size_t channels;
    float *pixels[4]; /* row by row, NULL for those outside of the image */
    float min, max;
};

/* What an instruction set has; element i of a transformed tile lies at `to + i * step`. */
struct pk_f32_winograd_kernel {
    /* Pixel (y, x) of the tile is number 4 y + x. */
    void (*input)(const float *const pixels[PK_F32_WINOGRAD_POINTS], size_t channels, float *to,
                  size_t step);
    /* `size` weights at each of 9 taps, which lie `tap` apart: a multiple of the vectors' width. */
    void (*weights)(const float *taps, size_t tap, size_t size, float *to, size_t step);
    /* Returns whether all are finite before they are clamped. */
    int (*output)(const struct pk_f32_winograd_output *output);
};

extern const struct pk_f32_winograd_kernel pk_f32_winograd_scalar;
#if PK_X86
extern const struct pk_f32_winograd_kernel pk_f32_winograd_avx2, pk_f32_winograd_avx512;
#elif PK_ARM
extern const struct pk_f32_winograd_kernel pk_f32_winograd_neon;
#endif

size_t pk_f32_winograd_scratch_size(const struct pk_f32_igemm_task *task);
void pk_f32_winograd_run(const struct pk_f32_igemm_task *task, const struct pk_pool *pool);

#endif
