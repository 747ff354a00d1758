/* Depthwise convolution in fp32: each channel has a filter of its own.
 *
 * A tile is a few output pixels side by side. Their sums stay in registers while the kernel walks
 * over the rows of the filter; each input is read once for all pixels of the tile that it goes to.
 */
#ifndef PENSTOCK_F32_DWCONV_H
#define PENSTOCK_F32_DWCONV_H

#include "core.h"

/* Pixels in a tile, and rows and columns of the filter, that kernels for whole rows have. */
#define PK_F32_DWCONV_PIXELS 7
#define PK_F32_DWCONV_SIZE 7
#define PK_F32_DWCONV_COLUMNS ((PK_F32_DWCONV_PIXELS - 1) * 2 + PK_F32_DWCONV_SIZE)

/* Packed weights: for each `width` channels the bias, then the taps in order, `width` floats each.
 * The channels of a last, narrower piece are filled up with zeros. */

/* Some pixels of one output row. */
struct pk_f32_dwconv_tile {
    size_t channels;
    size_t rows;      /* of the filter that lie within the image */
    size_t first;     /* the first of them */
    size_t all_rows;  /* of the filter */
    const float *weights;
    const float *inputs[PK_F32_DWCONV_SIZE][PK_F32_DWCONV_COLUMNS]; /* by row and column */
    float *output;
    size_t output_pixel;
    float min, max;
};

/* Output pixels side by side with whatever filter, of which the same taps lie within the image; the
 * others are left out. */
struct pk_f32_dwconv_run {
    size_t pixels;
    size_t channels;
    size_t first_row, rows, first_column, columns; /* of the filter that lie within the image */
    size_t kernel_height, kernel_width;
    const float *weights;
    const float *input; /* of the first tap that is there */
    size_t input_row, input_column; /* from tap to tap, in elements */
    size_t input_pixel;             /* from output to output */
    float *output;
    size_t output_pixel;
    float min, max;
};

typedef void (*pk_f32_dwconv_tile_function)(const struct pk_f32_dwconv_tile *tile);

/* Kernels of an instruction set for tiles of 1 to 7 pixels, `row` by filter width and stride. */
struct pk_f32_dwconv_kernel {
    const char *name;
    size_t width; /* floats in a vector */
    const pk_f32_dwconv_tile_function *(*row)(size_t kernel_width, size_t stride);
    void (*run)(const struct pk_f32_dwconv_run *run);
};

extern const struct pk_f32_dwconv_kernel pk_f32_dwconv_scalar;
#if PK_X86
extern const struct pk_f32_dwconv_kernel pk_f32_dwconv_avx2, pk_f32_dwconv_avx512;
#elif PK_ARM
extern const struct pk_f32_dwconv_kernel pk_f32_dwconv_neon;
#endif

struct pk_f32_dwconv_shape {
    uint32_t isa;
    size_t channels, kernel_height, kernel_width;
};

/* As struct pk_f32_igemm_task has it. `zero` has as many zeros as there are channels. */
struct pk_f32_dwconv_task {
    struct pk_f32_dwconv_shape shape;
    const void *packed;
    const float *zero;
    const float *input;
    float *output;
    size_t batch;
    size_t input_height, input_width, output_height, output_width;
    size_t stride_height, stride_width;
    size_t dilation_height, dilation_width;
    size_t padding_top, padding_left;
    float min, max;
};

#endif
