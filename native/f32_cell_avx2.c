/* Steps of recurrent layers: AVX2. */
#include "core.h"

#include <immintrin.h>

#define PK_LANES 8

#define fused(a, b, c) _mm256_fmadd_ps(a, b, c)

/* XNNPACK's polynomial and order of operations: e to the power of -|x| first. */
PK_INLINE __m256 sigmoid_of(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), magic = _mm256_set1_ps(0x1.8000FEp23f);
    const __m256 z = _mm256_or_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 shifted = _mm256_fmadd_ps(z, _mm256_set1_ps(0x1.715476p0f), magic);
    const __m256 s = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    const __m256 n = _mm256_sub_ps(shifted, magic);
    const __m256 t = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62E430p-1f), z);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0x1.0F9F9Cp-7f), t, _mm256_set1_ps(0x1.573A1Ap-5f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.555A80p-3f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.FFFDC6p-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.FFFFF6p-1f));
    const __m256 e = _mm256_fmadd_ps(_mm256_mul_ps(t, s), p, s);
    const __m256 tiny = _mm256_cmp_ps(z, _mm256_set1_ps(-0x1.5D589Ep+6f), _CMP_LT_OQ);
    const __m256 f = _mm256_andnot_ps(tiny, _mm256_div_ps(e, _mm256_add_ps(e, one)));
    return _mm256_blendv_ps(_mm256_sub_ps(one, f), f, x);
}

#define PK_OWN_SIGMOID
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_avx2 = {"avx2", cell};
