/* Group norms of fp32 images: over runs of channels and all places. Instance norms have as many groups
 * as channels. */
#ifndef PENSTOCK_F32_GROUP_NORM_H
#define PENSTOCK_F32_GROUP_NORM_H

#include "core.h"

/* Places whose channels are read twice, while the first level of cache holds them; and into how many
 * strips of blocks an image is cut at most, whatever the number of threads. */
#define PK_F32_GROUP_NORM_FLOATS 4096
#define PK_F32_GROUP_NORM_STRIPS 16

/* Of [images, places, channels]: output = clamp((input - mean) / sqrt(variance + epsilon) * scale +
 * shift), mean and variance over the places and channels / groups channels of an image. Each block of
 * places has its own mean, and the sum of squared differences from it; these are put together, so
 * that no sum is long. */
struct pk_f32_group_norm_task {
    uint32_t isa;
    float epsilon, min, max;
    size_t images, places, channels, groups;
    const float *scale, *shift; /* of each channel */
    const float *input;
    float *output;
    float *scratch;
};

/* `count` places of one image. */
struct pk_f32_group_norm_kernels {
    const char *name;
    /* Means of the channels, and sums of squared differences from them. */
    void (*measure)(const float *input, size_t count, size_t channels, float *mean, float *squares);
    void (*apply)(const struct pk_f32_group_norm_task *task, const float *input, float *output,
                  size_t count, const float *mean, const float *factor);
};

extern const struct pk_f32_group_norm_kernels pk_f32_group_norm_scalar;
#if PK_X86
extern const struct pk_f32_group_norm_kernels pk_f32_group_norm_avx2, pk_f32_group_norm_avx512;
#elif PK_ARM
extern const struct pk_f32_group_norm_kernels pk_f32_group_norm_neon;
#endif

PK_EXPORT size_t pk_f32_group_norm_scratch_size(const struct pk_f32_group_norm_task *task);
PK_EXPORT void pk_f32_group_norm_run(const struct pk_f32_group_norm_task *task,
                                     const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_group_norm_kernel(uint32_t isa);
#endif
