/* Means over the pixels of fp32 images, for avx2. */
#define PK_LANES 8
#include "f32_mean_vectors.h"

const struct pk_f32_mean_kernels pk_f32_mean_avx2 = {"avx2", mean};
