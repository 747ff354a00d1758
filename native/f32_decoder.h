/* What a decoder's layers do between their products, in fp32: root mean square norms, rotary
 * embeddings, attention over a cache, gated activations. Each is a chain of nodes in a graph.
 *
 * Sums are in another order than XNNPACK's, and exp is our own (2 units in the last place, 3 where it is
 * tiny or huge). */
#ifndef PENSTOCK_F32_DECODER_H
#define PENSTOCK_F32_DECODER_H

#include "core.h"

/* output[r][c] = x[r][c] / sqrt(mean(x[r]^2) + epsilon) * weight[c], of which x is the input or, for a
 * layer norm, the input less its row's mean; a layer norm adds bias[c]. */
struct pk_f32_norm_task {
    uint32_t isa;
    float epsilon;
    size_t rows, channels;
    const float *weight;
    const float *bias; /* NULL: no layer norm */
    const float *input;
    float *output;
};

/* Of [rows, heads, 2 * half]: output = x * cosine + (second half, first half of x) * sine; cosine and
 * sine are [rows, 2 * half]. */
struct pk_f32_turn_task {
    size_t rows, heads, half;
    const float *cosine, *sine;
    const float *input;
    float *output;
};

/* [rows, heads, size] to [heads, rows, size], of any type; `size` in bytes. */
struct pk_f32_heads_task {
    size_t rows, heads, size;
    const void *input;
    void *output;
};

/* output = a * sigmoid(a) * b, or with a `cubic` that is not 0, for GELU by tanh,
 * a * sigmoid(a * (cubic * a^2 + linear)) * b. `b` may be NULL for 1. In the other forms it is, without
 * b, sigmoid(a) or a * clamp(a + 3, 0, 6) / 6. */
enum pk_f32_gate_form { PK_F32_GATE = 0, PK_F32_SIGMOID = 1, PK_F32_HARD_SWISH = 2 };

struct pk_f32_gate_task {
    uint32_t isa;
    float cubic, linear;
    size_t count;
    const float *a, *b;
    float *output;
    uint32_t form;
};

/* Attention of queries [tokens, key_heads * group, size] over `old` rows of a cache and `tokens` new
 * ones, each [key_heads, rows, size], under one softmax, but for the new keys, which are
 * [tokens, key_heads, size]; `mask` [mask_rows, old + tokens] is added to
 * the scaled scores, its row (g * tokens + t) % mask_rows for query head g of a group. With a cap that
 * is not 0 a scaled score s becomes cap * tanh(s) before. The output is [tokens, key_heads * group, size].
 *
 * Old rows are float32 or, where there are scales, int8, each times its scale [key_heads, rows].
 *
 * Columns that the mask hides (by PK_HIDDEN or less) from all queries at hand are not read: their
 * weight is 0. */
#define PK_HIDDEN -1e8f

struct pk_f32_attention_task {
    uint32_t isa;
    float factor, cap;
    size_t tokens, key_heads, group, size, old, mask_rows, threads;
    const float *query;
    const void *old_keys;
    const float *new_keys;
    const void *old_values;
    const float *new_values;
    const float *key_scales, *value_scales;
    const float *mask;
    float *output;
    void *scratch;
};

/* Columns in a row, of the old rows or of the new ones. Those with scales are int8. */
struct pk_f32_columns {
    const void *keys, *values;
    const float *key_scales, *value_scales, *mask;
    size_t key_step, count;
};

/* A tile: all queries of one group of heads for some tokens. */
struct pk_f32_tile {
    const struct pk_f32_attention_task *task;
    size_t head, first, tokens;
    char *scratch;
};

struct pk_f32_decoder_kernels {
    const char *name;
    size_t lanes;
    void (*norm)(const struct pk_f32_norm_task *task, size_t begin, size_t end);
    void (*gate)(const struct pk_f32_gate_task *task, size_t begin, size_t end);
    void (*attend)(const struct pk_f32_tile *tile);
};

/* Tokens of a tile, and the bytes of scratch memory that it needs. */
size_t pk_f32_tile_tokens(const struct pk_f32_attention_task *task);
size_t pk_f32_tile_scratch(const struct pk_f32_attention_task *task);

/* The most columns that are looked at together. */
#define PK_F32_LANES 16

extern const struct pk_f32_decoder_kernels pk_f32_decoder_scalar;
#if PK_X86
extern const struct pk_f32_decoder_kernels pk_f32_decoder_avx2;
extern const struct pk_f32_decoder_kernels pk_f32_decoder_avx512;
#elif PK_ARM
extern const struct pk_f32_decoder_kernels pk_f32_decoder_neon;
#endif

PK_EXPORT void pk_f32_norm_run(const struct pk_f32_norm_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_turn_run(const struct pk_f32_turn_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_heads_run(const struct pk_f32_heads_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_gate_run(const struct pk_f32_gate_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_f32_attention_run(const struct pk_f32_attention_task *task,
                                    const struct pk_pool *pool);
PK_EXPORT size_t pk_f32_attention_scratch_size(const struct pk_f32_attention_task *task);
PK_EXPORT const char *pk_f32_norm_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_turn_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_heads_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_gate_kernel(uint32_t isa);
PK_EXPORT const char *pk_f32_attention_kernel(uint32_t isa);
#endif
