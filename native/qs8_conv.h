/* int8 convolution and fully-connected product with int8 weights, static quantization.
 *
 *     output = clamp(round(float(bias + sum (input - input_zero_point) * weight) * scale[channel])
 *                    + output_zero_point)
 *
 * which is XNNPACK's "fp32" requantization: rounding to nearest, ties to even, the upper bound taken
 * in floating point before rounding.
 *
 * The input is first copied into scratch memory in the form that the kernels multiply (bytes with
 * the sign bit flipped for VNNI, int16 less the zero point otherwise), with the padding around it.
 * In this copy a kernel's row of taps is one run of memory, so an output pixel is a start and a list
 * of offsets, the same for all pixels ("segments"): 7 runs of 21 values for a 7x7 kernel over three
 * channels. A 1x1 kernel is one run, and so is a fully-connected product.
 *
 * Weights are packed in panels of `lanes` output channels: bias and scale of each channel, then for
 * each segment and each group of `depth` values the weights of all channels. With AVX2 panels end with
 * the channels' own products (qs8_multiply_avx2.h).
 */
#ifndef PENSTOCK_QS8_CONV_H
#define PENSTOCK_QS8_CONV_H

#include "core.h"

/* A convolution at one size of its input. NHWC; weights [groups * group_output][kernel_height]
 * [kernel_width][group_input]. A fully-connected product of m rows is a 1x1 kernel over an image of
 * one line of m pixels. All sizes are positive but batch and the paddings. */
struct pk_qs8_conv {
    uint32_t isa; /* what may be used, a mask of enum pk_isa; the same for packing and running */
    int32_t input_zero_point, output_zero_point, output_min, output_max;
    size_t groups, group_input, group_output;
    size_t kernel_height, kernel_width, stride_height, stride_width;
    size_t dilation_height, dilation_width;
    size_t batch, input_height, input_width, padding_top, padding_left;
    size_t output_height, output_width;
    size_t threads, cache; /* of the pool; bytes of level 2 of a core */
    uint32_t flat;         /* 1: a 1x1 kernel without stride and padding */
    uint32_t dynamic;      /* 0, but for pk_qd8_product and pk_qd8_conv */
    /* From pixel to pixel, from line to line and from image to image of the output, in elements; 0
     * where they lie one behind the other. */
    size_t output_pixel, output_line, output_image;
};

struct pk_qs8_conv_task {
    struct pk_qs8_conv conv;
    const void *packed;
    const int8_t *input;
    int8_t *output;
    void *scratch;
};

/* How a row (a pixel) was quantized at run time: real = scale * (value - zero_point). */
struct pk_qd8_row {
    int32_t zero_point;
    float scale;
};

/* What one call of the tile kernels sees of its work: all pixels of a stripe, up to `panels` panels
 * of output channels. */
struct pk_qs8_tile {
    const void *const *rows;   /* of each output pixel: its first value in the prepared input */
    const size_t *segments;    /* offsets in bytes */
    size_t segment_count, segment_depth; /* groups of `depth` values in each segment */
    const void *panel;         /* the first of up to `panels` packed panels */
    size_t panel_size;         /* bytes */
    size_t ahead;              /* bytes from `panel`, as packed, to the one that comes next; 0: none */
    void *output;              /* of the first pixel and channel: int8, float if dynamic */
    size_t output_stride;      /* from pixel to pixel, in elements */
    size_t channels;           /* to be written, at most lanes * panels */
    int32_t zero_point, min, max;
    const int32_t *corrections;       /* of each pixel, for PK_QS8_SIGNED; or its own products */
    const struct pk_qd8_row *dynamic; /* of each pixel, for PK_QS8_DYNAMIC */
    float float_min, float_max;       /* for PK_QS8_DYNAMIC */
};

/* The forms of a product. */
enum pk_qs8_form {
    PK_QS8_PREPARED, /* the input is in scratch memory, in the form that kernels multiply */
    /* It is taken as it lies there, by kernels that multiply unsigned by signed bytes: the weights
     * are the unsigned operand, and what that adds is taken back. */
    PK_QS8_SIGNED,
    PK_QS8_DIRECT,  /* as it lies there, by kernels that multiply it as it is */
    PK_QS8_DYNAMIC, /* the input was quantized at run time, to what kernels multiply */
};

/* A tile without its first panel. Of a single row panels are taken one after the other: weights are
 * one stream of memory, which processors fetch ahead. */
static inline struct pk_qs8_tile pk_qs8_next_panel(const struct pk_qs8_tile *tile, size_t lanes,
                                                   enum pk_qs8_form form)
{
    struct pk_qs8_tile rest = *tile;
    rest.panel = (const char *)rest.panel + rest.panel_size;
    rest.channels = rest.channels > lanes ? rest.channels - lanes : 0;
    rest.output = (char *)rest.output + lanes * (form == PK_QS8_DYNAMIC ? sizeof(float) : 1);
    return rest;
}

typedef void (*pk_qs8_tiles)(const struct pk_qs8_tile *tile, size_t pixels, enum pk_qs8_form form);

struct pk_qs8_layout;

/* What each instruction set implements. */
struct pk_qs8_kernels {
    const char *name;
    size_t lanes;         /* channels of a panel */
    size_t depth;         /* values of a group: 4, 8 or 16 bytes, 2 int16 */
    int32_t flip;         /* what is added to each value: 128 or nothing */
    size_t element;       /* bytes of a prepared value */
    size_t panels;        /* that a tile takes at most */
    size_t rows;          /* pixels of the largest tile */
    /* Bytes of a weight in a panel that has been widened for many tiles in a row; 0 for kernels that
     * take panels as they are packed, one byte a weight. */
    size_t wide;
    /* That is nothing but a copy where `flip` is 0 and `element` 1: these have PK_QS8_DIRECT. */
    void (*prepare)(void *to, const int8_t *from, size_t count);
    pk_qs8_tiles tiles;
    /* `count` weights. */
    void (*widen)(void *to, const int8_t *weights, size_t count);
    pk_qs8_tiles wide_tiles;
    /* Of widened panels, by products that also have those of each pixel with itself and of each
     * channel with itself, which are taken back (qs8_multiply_avx2.h); NULL for kernels without. */
    pk_qs8_tiles own_tiles;
    /* What is to be taken back of a row of `depth` groups, and of the channels, at the end of each
     * packed panel. */
    int32_t (*own_of_row)(const void *row, size_t depth);
    void (*pack_own)(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l, void *packed);
    /* 128 times the sum of each row of `depth` values; NULL for kernels without PK_QS8_SIGNED. */
    void (*sum_rows)(int32_t *to, const int8_t *from, size_t rows, size_t depth);
    /* A row of `count` floats quantized at run time. */
    void (*quantize)(void *to, struct pk_qd8_row *row, const float *from, size_t count);
};

/* Bytes before the weights of a panel, for each channel: bias and scale; if quantized at run time
 * the sum of the weights, scale and bias. */
#define PK_QS8_HEADER 8
#define PK_QD8_HEADER 12
/* The own products of a channel, from here on to the end of its panel: of the tiles, of the four kinds
 * of outputs that Strassen's algorithm and Winograd's of 2x2 outputs put together, and of the nine of
 * Winograd's of 3x3, which 3x3 kernels alone have. */
#define PK_QS8_OWN 20
#define PK_QS8_OWN_TWO 16
#define PK_QS8_OWN_THREE 56

extern const struct pk_qs8_kernels pk_qs8_scalar;
#if PK_X86
extern const struct pk_qs8_kernels pk_qs8_avx2, pk_qs8_avxvnni, pk_qs8_avx512vnni;
#elif PK_ARM
extern const struct pk_qs8_kernels pk_qs8_neon, pk_qs8_dotprod, pk_qs8_i8mm;
#endif

/* Bytes of the packed weights; `packed` must be aligned to PK_ALIGNMENT. */
PK_EXPORT size_t pk_qs8_conv_packed_size(const struct pk_qs8_conv *conv);
/* `bias` (may be NULL) and `scale` have an element for each output channel. */
PK_EXPORT void pk_qs8_conv_pack(const struct pk_qs8_conv *conv, const int8_t *weights,
                                const int32_t *bias, const float *scale, void *packed);
/* Bytes, 0 if none are needed. */
PK_EXPORT size_t pk_qs8_conv_scratch_size(const struct pk_qs8_conv *conv);
/* May read up to PK_OVERREAD bytes beyond the input. */
PK_EXPORT void pk_qs8_conv_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool);
/* The name of the kernel that runs with `isa`. */
PK_EXPORT const char *pk_qs8_conv_kernel(uint32_t isa);

/* A fully-connected product of float rows that have been quantized at run time, each by itself:
 *
 *     output = clamp(float(sum (input - zero_point[row]) * weight) * scale[row] * scale[channel]
 *                    + bias[channel])
 *
 * the multiplication by the channel's scale and the addition rounded once, as in XNNPACK. */
struct pk_qd8_product {
    uint32_t isa;
    float min, max;
    size_t rows, inputs, outputs;
    size_t threads, cache;
};

struct pk_qd8_product_task {
    struct pk_qd8_product product;
    const void *packed;
    const void *input; /* of pk_qd8_quantize_run */
    float *output;
    void *scratch;
};

PK_EXPORT size_t pk_qd8_product_packed_size(const struct pk_qd8_product *product);
/* `bias` may be NULL. */
PK_EXPORT void pk_qd8_product_pack(const struct pk_qd8_product *product, const int8_t *weights,
                                   const float *bias, const float *scale, void *packed);
PK_EXPORT size_t pk_qd8_product_scratch_size(const struct pk_qd8_product *product);
PK_EXPORT void pk_qd8_product_run(const struct pk_qd8_product_task *task,
                                  const struct pk_pool *pool);
PK_EXPORT const char *pk_qd8_product_kernel(uint32_t isa);

struct pk_qd8_quantize {
    uint32_t isa;
    size_t rows, channels, threads;
};

struct pk_qd8_quantize_task {
    struct pk_qd8_quantize quantize;
    const float *input;
    void *output;
};

/* Bytes of the quantized rows: a struct pk_qd8_row for each, then, aligned, their values. */
PK_EXPORT size_t pk_qd8_quantize_size(const struct pk_qd8_quantize *quantize);
PK_EXPORT void pk_qd8_quantize_run(const struct pk_qd8_quantize_task *task,
                                   const struct pk_pool *pool);
PK_EXPORT const char *pk_qd8_quantize_kernel(uint32_t isa);
#endif
