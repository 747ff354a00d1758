/* Group norms of fp32 images, for avx512. */
#define PK_LANES 16
#include "f32_group_norm_vectors.h"

const struct pk_f32_group_norm_kernels pk_f32_group_norm_avx512 = {"avx512", measure, apply};
