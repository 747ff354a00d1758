/* Exponentials and quotients for AVX-512; see f32_exp.h. */
#ifndef PENSTOCK_F32_EXP_AVX512_H
#define PENSTOCK_F32_EXP_AVX512_H

#include <immintrin.h>

#define PK_OWN_EXPONENTIAL

/* e to the power of x, at most 88; below -104, and of NaN, it is 0. The polynomial has the least relative
 * error on half a power of two. */
static inline __m512 exponential(__m512 x)
{
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-104.0f)), _mm512_set1_ps(88.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.69314718f), x);
    __m512 p = _mm512_set1_ps(0.008290272f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.04189816f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.16667639f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.49999148f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.9999997f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 at_least(__m512 a, __m512 least)
{
    return _mm512_max_ps(least, a);
}

/* a / b by Newton's method: within 2 units in the last place. */
static inline __m512 quotient(__m512 a, __m512 b)
{
    const __m512 guess = _mm512_rcp14_ps(b);
    const __m512 rest = _mm512_fnmadd_ps(b, guess, _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(a, _mm512_fmadd_ps(guess, rest, guess));
}

#endif
