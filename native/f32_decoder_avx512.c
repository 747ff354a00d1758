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

#define PK_TRANSPOSE transpose
#include "f32_decoder_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_avx512 = {
    "avx512", PK_LANES, norm, gate, attend,
};
