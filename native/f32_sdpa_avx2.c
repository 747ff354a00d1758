/* Scaled dot-product attention for avx2. */
#include "f32_transpose_avx2.h"

#define PK_LANES 8
#define ROWS 6
#define WIDE 2
#define PK_TRANSPOSE pk_transpose
#define fused(a, b, c) _mm256_fmadd_ps(a, b, c)
#include "f32_sdpa_vectors.h"

const struct pk_f32_sdpa_kernel pk_f32_sdpa_avx2 = {"avx2", attend};
