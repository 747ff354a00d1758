/* Scaled dot-product attention: vectors that every processor has, or that the compiler makes of
 * scalars. */
#define PK_LANES 4
#define ROWS 2
#define fused(a, b, c) ((a) * (b) + (c))
#include "f32_sdpa_vectors.h"

const struct pk_f32_sdpa_kernel pk_f32_sdpa_scalar = {"scalar", attend};
