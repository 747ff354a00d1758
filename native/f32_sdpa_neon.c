/* Scaled dot-product attention for NEON. */
#include "f32_transpose_neon.h"
#include "neon.h"

#define PK_LANES 4
#define ROWS 8
#define PK_TRANSPOSE pk_transpose
#define fused(a, b, c) vfmaq_f32(c, a, b)
#include "f32_sdpa_vectors.h"

const struct pk_f32_sdpa_kernel pk_f32_sdpa_neon = {"neon", attend};
