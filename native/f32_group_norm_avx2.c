/* Group norms of fp32 images, for avx2. */
#define PK_LANES 8
#include "f32_group_norm_vectors.h"

const struct pk_f32_group_norm_kernels pk_f32_group_norm_avx2 = {"avx2", measure, apply};
