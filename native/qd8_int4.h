/* Fully-connected products of float rows that were quantized at run time (see pk_qd8_quantize_run)
 * with int4 weights, which stand for -8 .. 7 and are stored as 0 .. 15, or with int8 weights that all
 * lie in -32 .. 31 (6 bits). With a scale for each channel:
 *
 *     output = clamp(float(sum (input - zero_point[row]) * weight) * scale[row] * scale[channel]
 *                    + bias[channel])
 *
 * the multiplication by the channel's scale and the addition rounded once. With a bfloat16 scale for
 * each block of a channel's weights, in the order of XNNPACK's kernels for VNNI, on unsigned values
 * (input + 128): a sum in floating point starts with what the zero point takes away (a product with
 * the channel's sum, which packing adds up over 16 weights at a time), each block adds its integer sum
 * times its scale, rounded once, and
 *
 *     output = clamp(sum * scale[row] + bias[channel])
 *
 * rounded after each operation. All instruction sets have these bits.
 *
 * Weights are packed in panels of `lanes` channels: a header, then for each 32 values (a chunk) four
 * vectors with a dword for each channel: the weights of four values in the low halves of its bytes,
 * those of the next four in the high halves. Before each group of as many blocks as fill a cache line
 * with their scales stands that line: all that a product reads is one stream of memory, or processors
 * do not fetch it ahead. Of 6 bits the upper four are packed so; before the four vectors of a chunk
 * stand two with the lower two bits, those of four times four values in a dword, the first ones lowest.
 */
#ifndef PENSTOCK_QD8_INT4_H
#define PENSTOCK_QD8_INT4_H

#include "qs8_conv.h"

struct pk_qd8_int4 {
    uint32_t isa; /* the same for packing and running */
    float min, max;
    size_t rows, inputs, outputs; /* inputs: even, PK_INT4_MOST at most; a multiple of `block` */
    size_t bits;                  /* of a weight: 4, or 6 with scales of channels */
    size_t block;                 /* values of a block, a multiple of 32; 0: scales of channels */
    size_t threads, cache;        /* of the pool; bytes of level 2 of a core */
};

struct pk_qd8_int4_task {
    struct pk_qd8_int4 product;
    const void *packed;
    const void *input; /* of pk_qd8_quantize_run */
    float *output;
    void *scratch;
};

#define PK_INT4_CHUNK 32
/* Inputs whose products add up to an int32, 16 times over. */
#define PK_INT4_MOST 65536

/* What a kernel sees of its work: some rows, a panel of channels. */
struct pk_qd8_int4_tile {
    const char *values; /* of the first row: unsigned bytes, readable to the end of a chunk */
    size_t row_size;    /* bytes from row to row */
    const struct pk_qd8_row *rows;
    size_t chunks, block; /* chunks of a row, and of a block (0: scales of channels) */
    size_t bits;
    const char *panel;
    const char *unpacked; /* its weights, a byte each; NULL to take them as they are packed */
    float *output;
    size_t output_stride; /* from row to row, in elements */
    size_t channels;      /* that exist, at most `lanes` */
    float min, max;
};

struct pk_qd8_int4_kernels {
    const char *name;
    size_t lanes;
    size_t rows;     /* of a tile: of so many, weights are read but once */
    uint8_t flip;    /* what packing changes in both halves of a byte: 0x88 for two's complement */
    int32_t factor;  /* what kernels multiply int4 weights by; */
    int32_t factor6; /* ... and those of 6 bits */
    size_t element;  /* bytes of a quantized value */
    /* `count` quantized values as unsigned bytes; NULL if they are */
    void (*prepare)(char *to, const void *from, size_t count);
    /* Weights of chunks as bytes, low halves before high ones; NULL if that does not pay. */
    void (*unpack)(char *to, const char *from, size_t chunks);
    void (*unpack6)(char *to, const char *from, size_t chunks);
    void (*tiles)(const struct pk_qd8_int4_tile *tile, size_t rows);
};

extern const struct pk_qd8_int4_kernels pk_qd8_int4_scalar;
#if PK_X86
extern const struct pk_qd8_int4_kernels pk_qd8_int4_avx2, pk_qd8_int4_avxvnni, pk_qd8_int4_avx512vnni;
#elif PK_ARM
extern const struct pk_qd8_int4_kernels pk_qd8_int4_bytes;
#endif

/* Bytes of a chunk of a panel. */
static inline size_t pk_qd8_int4_chunk(size_t lanes, size_t bits)
{
    return lanes * (PK_INT4_CHUNK / 8) * bits;
}

/* Bytes of a panel's header: of each channel what its zero point takes away (a float, or with scales
 * of channels an int32), its scale (if it has one), its bias. */
static inline size_t pk_qd8_int4_header(size_t lanes)
{
    return pk_round_up(12 * lanes, PK_ALIGNMENT);
}

/* Blocks of a group. */
static inline size_t pk_qd8_int4_group(size_t lanes)
{
    return PK_ALIGNMENT / (2 * lanes);
}

PK_EXPORT size_t pk_qd8_int4_packed_size(const struct pk_qd8_int4 *product);
/* `weights` has rows of inputs / 2 bytes, the even index in the low half; of 6 bits, a byte for each.
 * `scale`: float32 of
 * channels, or bfloat16 of all blocks of a channel after another. `bias` may be NULL. */
PK_EXPORT void pk_qd8_int4_pack(const struct pk_qd8_int4 *product, const uint8_t *weights,
                                const float *bias, const void *scale, void *packed);
PK_EXPORT size_t pk_qd8_int4_scratch_size(const struct pk_qd8_int4 *product);
PK_EXPORT void pk_qd8_int4_run(const struct pk_qd8_int4_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_qd8_int4_kernel(uint32_t isa);
#endif
