/* Group norms of fp32 images, for scalar. */
#define PK_LANES 4
#include "f32_group_norm_vectors.h"

const struct pk_f32_group_norm_kernels pk_f32_group_norm_scalar = {"scalar", measure, apply};
