/* Floats as columns, with AVX-512. */
#ifndef PENSTOCK_F32_TRANSPOSE_AVX512_H
#define PENSTOCK_F32_TRANSPOSE_AVX512_H

#include "core.h"

#include <immintrin.h>

PK_INLINE void pk_put_column(float *to, __m512 column, const int past)
{
    if (past)
        _mm512_stream_ps(to, column);
    else
        _mm512_storeu_ps(to, column);
}

/* 16 rows of 16 floats, `step` apart, as columns, `stride` apart. `past`: the columns, which lie on
 * whole lines of the caches, are written past these, in an order that only a fence ends. */
PK_INLINE void pk_transpose_16(float *to, size_t stride, const float *from, size_t step, const int past)
{
    __m512 r[16], s[16];
    for (size_t i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(from + i * step);
    for (size_t i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    /* r[4 q + c] has in its 128-bit part p column 4 p + c of rows 4 q to 4 q + 3. */
    for (size_t c = 0; c < 4; c++) {
        const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44);
        const __m512 b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
        const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
        const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
        pk_put_column(to + c * stride, _mm512_shuffle_f32x4(a, d, 0x88), past);
        pk_put_column(to + (4 + c) * stride, _mm512_shuffle_f32x4(a, d, 0xdd), past);
        pk_put_column(to + (8 + c) * stride, _mm512_shuffle_f32x4(b, e, 0x88), past);
        pk_put_column(to + (12 + c) * stride, _mm512_shuffle_f32x4(b, e, 0xdd), past);
    }
}

PK_INLINE void pk_transpose(float *to, size_t stride, const float *from, size_t step)
{
    pk_transpose_16(to, stride, from, step, 0);
}
#endif
