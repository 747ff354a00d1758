/* Layer norms with XNNPACK's bits: AVX2. */
#include "core.h"

#include <immintrin.h>

#define PK_LANES 8
#define fused(a, b, c) __builtin_fmaf(a, b, c)

/* XNNPACK's one step of Newton's method. */
PK_INLINE __m256 inverse_root(__m256 x)
{
    const __m256 y = _mm256_rsqrt_ps(x), half = _mm256_mul_ps(_mm256_set1_ps(0.5f), y);
    const __m256 power = _mm256_mul_ps(x, _mm256_mul_ps(y, y));
    const __m256 excess = _mm256_mul_ps(_mm256_sub_ps(power, _mm256_set1_ps(1.0f)), half);
    const __m256 endless = _mm256_cmp_ps(x, _mm256_set1_ps(__builtin_inff()), _CMP_EQ_OQ);
    return _mm256_andnot_ps(endless, _mm256_sub_ps(y, excess));
}

#include "f32_layer_norm_vectors.h"

const struct pk_f32_layer_norm_kernels pk_f32_layer_norm_avx2 = {"avx2", run};
