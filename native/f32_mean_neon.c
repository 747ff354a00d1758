/* Means over the pixels of fp32 images, for neon. */
#define PK_LANES 4
#include "f32_mean_vectors.h"

const struct pk_f32_mean_kernels pk_f32_mean_neon = {"neon", mean};
