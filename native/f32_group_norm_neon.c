/* Group norms of fp32 images, for neon. */
#define PK_LANES 4
#include "f32_group_norm_vectors.h"

const struct pk_f32_group_norm_kernels pk_f32_group_norm_neon = {"neon", measure, apply};
