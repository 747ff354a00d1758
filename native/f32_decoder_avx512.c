/* The layers of decoders for avx512. */
#include <immintrin.h>

#define PK_LANES 16
#define PK_ROWS 6

/* 16 rows of 16 floats, `stride` apart, as columns. */
static inline void transpose(float *to, const float *from, unsigned long stride)
{
    __m512 r[16], s[16];
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(from + i * stride);
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    /* r[4 q + c] has in its 128-bit part p column 4 p + c of rows 4 q to 4 q + 3. */
    for (int c = 0; c < 4; c++) {
        const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44);
        const __m512 b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
        const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
        const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
        _mm512_storeu_ps(to + c * 16, _mm512_shuffle_f32x4(a, d, 0x88));
        _mm512_storeu_ps(to + (4 + c) * 16, _mm512_shuffle_f32x4(a, d, 0xdd));
        _mm512_storeu_ps(to + (8 + c) * 16, _mm512_shuffle_f32x4(b, e, 0x88));
        _mm512_storeu_ps(to + (12 + c) * 16, _mm512_shuffle_f32x4(b, e, 0xdd));
    }
}

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

#define PK_OWN_EXPONENTIAL
#define PK_TRANSPOSE transpose
#include "f32_decoder_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_avx512 = {
    "avx512", PK_LANES, norm, gate, attend,
};
