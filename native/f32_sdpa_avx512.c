/* Scaled dot-product attention for avx512. */
#include "f32_transpose_avx512.h"

#define PK_LANES 16
#define ROWS 7
#define PK_TRANSPOSE pk_transpose
#define fused(a, b, c) _mm512_fmadd_ps(a, b, c)
#include "f32_sdpa_vectors.h"

const struct pk_f32_sdpa_kernel pk_f32_sdpa_avx512 = {"avx512", attend};
