/* int8 depthwise convolution, one output channel for each input channel. The arithmetic is that of
 * qs8_conv.h.
 *
 * Kernels multiply a column of taps at a time: `slots` rows of pixels, interleaved, by the weights
 * of these rows. A column of the input is interleaved once for all the outputs of a block that read
 * it. A kernel that is one row high goes as one column: its taps are interleaved as rows are. Channels
 * go in blocks; each block has its packed bias, scales and weights. The order of
 * channels in a vector of sums is that in which interleaving leaves them.
 */
#ifndef PENSTOCK_QS8_DWCONV_H
#define PENSTOCK_QS8_DWCONV_H

#include "core.h"

/* NHWC; weights [kernel_height][kernel_width][channels]. Kernels are of 1024 taps at most: what a few
 * outputs read is looked up on the stack. */
struct pk_qs8_dwconv {
    uint32_t isa; /* what may be used, a mask of enum pk_isa; the same for packing and running */
    int32_t input_zero_point, output_zero_point, output_min, output_max;
    size_t channels;
    size_t kernel_height, kernel_width, stride_height, stride_width;
    size_t dilation_height, dilation_width;
    size_t batch, input_height, input_width, padding_top, padding_left;
    size_t output_height, output_width;
    size_t threads; /* of the pool */
};

struct pk_qs8_dwconv_task {
    struct pk_qs8_dwconv conv;
    const void *packed;
    const int8_t *input;
    int8_t *output;
    void *scratch;
};

/* A few neighbouring output pixels of a line, a block of channels. */
struct pk_qs8_dwblock {
    const int8_t *const *rows; /* of each column, a pixel for each row of taps, padded to groups */
    size_t groups;             /* of rows of taps */
    size_t kernel_width;
    size_t output_step;        /* columns from output to output */
    size_t tap_step;           /* from tap to tap */
    size_t offset;             /* the first channel */
    size_t channels;           /* to be written, at most the block's width */
    const void *packed;
    int8_t *output;            /* of the first pixel and channel */
    size_t output_stride;      /* from pixel to pixel */
    int32_t zero_point, min, max;
};

/* `outputs` neighbouring pixels. `shared`: the kernel is square, columns are `stride` apart for
 * neighbouring outputs, those of taps lie side by side. */
typedef void (*pk_qs8_dwrun)(const struct pk_qs8_dwblock *block, size_t outputs, size_t stride,
                             int shared);

struct pk_qs8_dwkernels {
    const char *name;
    size_t depth;     /* rows of taps in a group */
    int32_t flip;     /* what kernels add to each value, 128 or nothing */
    size_t weight;    /* bytes of a packed weight */
    size_t outputs;   /* of a block at most: a power of two */
    size_t widths[3]; /* channels of a block, descending, the last is for any rest */
    pk_qs8_dwrun runs[3];
    /* Channel of sum number `at` of a block of `width`. */
    size_t (*channel)(size_t width, size_t at);
};

/* Whether there may be a block for kernels of this very shape. */
static inline int pk_qs8_dwconv_shared(const struct pk_qs8_dwconv *d)
{
    const size_t k = d->kernel_width, s = d->stride_width;
    return d->dilation_width == 1 && d->kernel_height == k && (((k == 3 || k == 5) && s <= 2) || (k == 7 && s == 1));
}

#define PK_QS8_DW_OUTPUTS 4

extern const struct pk_qs8_dwkernels pk_qs8_dw_scalar;
#if PK_X86
extern const struct pk_qs8_dwkernels pk_qs8_dw_avx2, pk_qs8_dw_avxvnni, pk_qs8_dw_avx512vnni;
#elif PK_ARM
extern const struct pk_qs8_dwkernels pk_qs8_dw_neon, pk_qs8_dw_dotprod;
#endif

PK_EXPORT size_t pk_qs8_dwconv_packed_size(const struct pk_qs8_dwconv *d);
PK_EXPORT void pk_qs8_dwconv_pack(const struct pk_qs8_dwconv *d, const int8_t *weights,
                                  const int32_t *bias, const float *scale, void *packed);
PK_EXPORT size_t pk_qs8_dwconv_scratch_size(const struct pk_qs8_dwconv *d);
/* May read up to PK_OVERREAD bytes beyond the input. */
PK_EXPORT void pk_qs8_dwconv_run(const struct pk_qs8_dwconv_task *task, const struct pk_pool *pool);
/* The name of the kernel that runs with `isa`. */
PK_EXPORT const char *pk_qs8_dwconv_kernel(uint32_t isa);
#endif
