/* Between fp32 and int8: tensors with one scale and zero point, to int8 and back; rows rounded to int8
 * with a scale each and back (a cache of 8 bits), sums of blocks of a row, and products of such sums
 * with int8 weights (the offsets of 4-bit weights in blocks).
 *
 * What is rounded, and scales, have XNNPACK's bits; sums are in another order. */
#ifndef PENSTOCK_F32_INT8_H
#define PENSTOCK_F32_INT8_H

#include "core.h"

/* Elements of a tensor that go together. */
#define PK_F32_INT8_CHUNK 4096

/* output = x * inverse_scale, rounded to the nearest (halves to even), + zero_point, in int8's range */
struct pk_f32_quantize_task {
    uint32_t isa;
    float inverse_scale;
    int32_t zero_point;
    size_t count;
    const float *input;
    int8_t *output;
};

/* output = (x - zero_point) * scale */
struct pk_f32_dequantize_task {
    uint32_t isa;
    float scale;
    int32_t zero_point;
    size_t count;
    const int8_t *input;
    float *output;
};

/* Of rows of `size` values: scales[r] = clamp(max |x|, min, max) * factor */
struct pk_f32_scale_task {
    uint32_t isa;
    float min, max, factor;
    size_t rows, size;
    const float *input;
    float *output;
};

/* output = x / scales[r], rounded to the nearest int8 (halves to even) */
struct pk_f32_narrow_task {
    uint32_t isa;
    size_t rows, size;
    const float *input, *scales;
    int8_t *output;
};

/* output = x * scales[r] */
struct pk_f32_widen_task {
    uint32_t isa;
    size_t rows, size;
    const int8_t *input;
    const float *scales;
    float *output;
};

/* output[b] = the sum of block b, times factor: all blocks have `size` values */
struct pk_f32_block_sums_task {
    uint32_t isa;
    float factor;
    size_t blocks, size;
    const float *input;
    float *output;
};

/* output[r][o] = clamp(sum over i of input[r][i] * weights[o][i] * scales[o]). Weights are packed in
 * panels of PK_F32_QC8_LANES outputs: scales, then the weights of each input. */
#define PK_F32_QC8_LANES 16

struct pk_f32_qc8_product {
    uint32_t isa;
    float min, max;
    size_t rows, inputs, outputs;
};

struct pk_f32_qc8_task {
    struct pk_f32_qc8_product product;
    const void *packed;
    const float *input;
    float *output;
};

struct pk_f32_int8_kernels {
    const char *name;
    void (*quantize)(const struct pk_f32_quantize_task *task, size_t begin, size_t end);
    void (*dequantize)(const struct pk_f32_dequantize_task *task, size_t begin, size_t end);
    void (*scale)(const struct pk_f32_scale_task *task, size_t begin, size_t end);
    void (*narrow)(const struct pk_f32_narrow_task *task, size_t begin, size_t end);
    void (*widen)(const struct pk_f32_widen_task *task, size_t begin, size_t end);
    void (*sums)(const struct pk_f32_block_sums_task *task, size_t begin, size_t end);
    void (*product)(const struct pk_f32_qc8_task *task, size_t begin, size_t end);
};

extern const struct pk_f32_int8_kernels pk_f32_int8_scalar;
#if PK_X86
extern const struct pk_f32_int8_kernels pk_f32_int8_avx2, pk_f32_int8_avx512;
#elif PK_ARM
extern const struct pk_f32_int8_kernels pk_f32_int8_neon;
#endif

static inline size_t pk_f32_qc8_panel(size_t inputs)
{
    return pk_round_up(PK_F32_QC8_LANES * (sizeof(float) + inputs), PK_ALIGNMENT);
}

PK_EXPORT void pk_f32_quantize_run(const struct pk_f32_quantize_task *task,
                                   const struct pk_pool *pool);
PK_EXPORT void pk_f32_dequantize_run(const struct pk_f32_dequantize_task *task,
                                     const struct pk_pool *pool);
PK_EXPORT void pk_f32_scale_run(const struct pk_f32_scale_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_narrow_run(const struct pk_f32_narrow_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_widen_run(const struct pk_f32_widen_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_block_sums_run(const struct pk_f32_block_sums_task *task,
                                     const struct pk_pool *pool);
PK_EXPORT size_t pk_f32_qc8_packed_size(const struct pk_f32_qc8_product *product);
/* `weights` [outputs, inputs]. */
PK_EXPORT void pk_f32_qc8_pack(const struct pk_f32_qc8_product *product, const int8_t *weights,
                               const float *scale, void *packed);
PK_EXPORT void pk_f32_qc8_run(const struct pk_f32_qc8_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_quantize_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_dequantize_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_scale_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_narrow_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_widen_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_block_sums_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_qc8_kernel(uint32_t isa);
#endif
