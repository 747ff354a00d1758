/* Exponentials and quotients for AVX2; see f32_exp.h. */
#ifndef PENSTOCK_F32_EXP_AVX2_H
#define PENSTOCK_F32_EXP_AVX2_H

#include <immintrin.h>

#define PK_OWN_EXPONENTIAL

/* e to the power of x, at most 88; below -87, and of NaN, it is 0. The polynomial has the least relative
 * error on half a power of two. */
static inline __m256 exponential(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f); /* 1.5 * 2^23 leaves no room for a fraction */
    const __m256 whole = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_GE_OQ);
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.0f)), _mm256_set1_ps(88.0f));
    const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), magic);
    const __m256 n = _mm256_sub_ps(shifted, magic);
    const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.69314718f), x);
    __m256 p = _mm256_set1_ps(0.008290272f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.04189816f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.16667639f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.49999148f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.9999997f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    const __m256 scale = _mm256_castsi256_ps(
        _mm256_add_epi32(power, _mm256_castps_si256(_mm256_set1_ps(1.0f))));
    return _mm256_and_ps(_mm256_mul_ps(p, scale), whole);
}

static inline __m256 at_least(__m256 a, __m256 least)
{
    return _mm256_max_ps(least, a);
}

static inline __m256 quotient(__m256 a, __m256 b)
{
    return _mm256_div_ps(a, b);
}

#endif
