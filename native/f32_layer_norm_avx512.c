/* Layer norms with XNNPACK's bits: AVX-512. */
#include "core.h"

#include <immintrin.h>

#define PK_LANES 16
#define fused(a, b, c) __builtin_fmaf(a, b, c)

/* XNNPACK's one step of Newton's method. */
PK_INLINE __m512 inverse_root(__m512 x)
{
    const __m512 y = _mm512_rsqrt14_ps(x), half = _mm512_mul_ps(_mm512_set1_ps(0.5f), y);
    const __m512 power = _mm512_mul_ps(x, _mm512_mul_ps(y, y));
    const __m512 excess = _mm512_mul_ps(_mm512_sub_ps(power, _mm512_set1_ps(1.0f)), half);
    const __mmask16 finite = _mm512_cmp_ps_mask(x, _mm512_set1_ps(__builtin_inff()), _CMP_NEQ_UQ);
    return _mm512_maskz_sub_ps(finite, y, excess);
}

#include "f32_layer_norm_vectors.h"

const struct pk_f32_layer_norm_kernels pk_f32_layer_norm_avx512 = {"avx512", run};
