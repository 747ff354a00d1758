/* Means over the pixels of fp32 images, for avx512. */
#define PK_LANES 16
#include "f32_mean_vectors.h"

const struct pk_f32_mean_kernels pk_f32_mean_avx512 = {"avx512", mean};
