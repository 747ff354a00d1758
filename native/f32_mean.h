/* Means over the pixels of fp32 images. Sums of PK_F32_MEAN_BLOCK pixels are added up: of many pixels
 * these are more exact than one sum of all. */
#ifndef PENSTOCK_F32_MEAN_H
#define PENSTOCK_F32_MEAN_H

#include "core.h"

#define PK_F32_MEAN_BLOCK 64
/* Channels that go together, a multiple of each kernel's vector. */
#define PK_F32_MEAN_CHANNELS 64

/* Of [images, pixels, channels]: output[i][c] = clamp(mean over p of input[i][p][c]). */
struct pk_f32_mean_task {
    uint32_t isa;
    float min, max;
    size_t images, pixels, channels;
    const float *input;
    float *output;
};

/* Units are PK_F32_MEAN_CHANNELS channels of an image. */
struct pk_f32_mean_kernels {
    const char *name;
    void (*mean)(const struct pk_f32_mean_task *task, size_t begin, size_t end);
};

extern const struct pk_f32_mean_kernels pk_f32_mean_scalar;
#if PK_X86
extern const struct pk_f32_mean_kernels pk_f32_mean_avx2, pk_f32_mean_avx512;
#elif PK_ARM
extern const struct pk_f32_mean_kernels pk_f32_mean_neon;
#endif

PK_EXPORT void pk_f32_mean_run(const struct pk_f32_mean_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_mean_kernel(uint32_t isa);
#endif
