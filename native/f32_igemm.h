/* Products in fp32: convolution (any kernel, stride, padding, dilation, groups) and fully-connected,
 * which is a convolution with one tap.
 *
 * Rows of the input (the channels of one pixel) are found through pointers, one for each output
 * pixel and tap, so that nothing is copied. A tile of the output, MR pixels times NR channels, is
 * kept in registers while a kernel walks over taps and input channels.
 */
#ifndef PENSTOCK_F32_IGEMM_H
#define PENSTOCK_F32_IGEMM_H

#include "core.h"

/* The most taps that a kernel walks over in one go. */
#define PK_F32_IGEMM_TAPS 128
/* The highest tile of any instruction set. */
#define PK_F32_IGEMM_ROWS 14

/* What a kernel computes: some rows of as many panels as the columns fill, over some taps and
 * channels. */
struct pk_f32_tile {
    size_t taps, channels;
    /* For each tap `rows` pointers, PK_F32_IGEMM_ROWS apart, `offset` elements before the first of
     * the channels. */
    const float *const *inputs;
    size_t offset;
    /* For each tap where its weights begin: channels x the panel's width. */
    const float *const *weights;
    const float *bias; /* of the first panel, NULL to go on from what is in the output */
    float *output;
    size_t output_stride; /* from row to row, in elements */
    size_t columns;       /* that exist, of all panels together */
    size_t panel_stride;  /* weights and bias from panel to panel, in elements; of narrow kernels the
                             weights from channel to channel */
    float min, max;       /* infinite while more is to come */
    size_t ahead;         /* how many elements behind the weights those lie that come next */
};

typedef void (*pk_f32_tile_function)(const struct pk_f32_tile *tile);

/* The kernels of an instruction set: tiles of 1 to `rows` rows and of `vectors` vectors of `width`
 * floats, or fewer vectors in the last panel. */
struct pk_f32_igemm_kernel {
    const char *name;
    uint32_t isa;
    size_t rows, width, vectors;
    /* [rows - 1][vectors - 1] */
    const pk_f32_tile_function (*tiles)[2];
    /* `block` rows of `block` floats, `step` apart, as columns, `stride` apart: for packing. A panel's
     * width is a multiple of `block`. `past`: past the caches, if it can. */
    size_t block;
    void (*transpose)(float *to, size_t stride, const float *from, size_t step, int past);
    /* For at most `width` output channels: vectors of `block` input channels are multiplied, and the
     * weights of each output channel lie side by side. */
    int narrow;
};

extern const struct pk_f32_igemm_kernel pk_f32_igemm_scalar;
#if PK_X86
extern const struct pk_f32_igemm_kernel pk_f32_igemm_avx2, pk_f32_igemm_avx512;
extern const struct pk_f32_igemm_kernel pk_f32_narrow_avx2, pk_f32_narrow_avx512;
#elif PK_ARM
extern const struct pk_f32_igemm_kernel pk_f32_igemm_neon;
#endif

/* Channels are those of one group. */
struct pk_f32_igemm_shape {
    uint32_t isa;
    size_t groups, input_channels, output_channels, taps;
    uint32_t in_order; /* each sum is made in the order of the inputs, as XNNPACK makes it */
};

/* An output pixel reads the taps (y, x) of the input at
 * (oy * stride - padding + y * dilation, ox * stride - padding + x * dilation); those outside are
 * zero. Channels lie innermost: groups * input_channels, groups * output_channels. */
struct pk_f32_igemm_task {
    struct pk_f32_igemm_shape shape;
    const void *packed;
    const float *zero; /* kernel_width * groups * input_channels zeros, and PK_OVERREAD bytes */
    const float *input;
    float *output;
    size_t batch;
    size_t input_height, input_width, output_height, output_width;
    size_t kernel_height, kernel_width;
    size_t stride_height, stride_width;
    size_t dilation_height, dilation_width;
    size_t padding_top, padding_left;
    size_t input_pixel, output_pixel; /* from pixel to pixel, in elements */
    /* From line to line and from image to image; 0 where pixels lie one behind the other. */
    size_t output_line, output_image;
    float min, max;
    struct pk_caches caches;
    uint32_t winograd; /* whether F(2x2, 3x3) makes it: see f32_winograd.h */
    size_t threads;    /* for which scratch memory is there */
    void *scratch;
};

/* A panel is `width * vectors` output channels of one group; the last one of a group has as few
 * vectors as do. Panels lie one after the other: bias, then taps x input channels x width. */
struct pk_f32_panels {
    size_t full_width, count;
    size_t depth; /* weights of one output channel */
    size_t last_width;
};

struct pk_f32_panels pk_f32_panels_of(const struct pk_f32_igemm_kernel *kernel,
                                      const struct pk_f32_igemm_shape *shape);
/* Elements from one group to the next. */
size_t pk_f32_group_size(const struct pk_f32_panels *p);

/* The kernels of an instruction set, and those for a shape. */
const struct pk_f32_igemm_kernel *pk_f32_igemm_kernel_for(uint32_t isa);
const struct pk_f32_igemm_kernel *pk_f32_igemm_kernel_of(const struct pk_f32_igemm_shape *shape);

#endif
