/* int8 convolution by Winograd's F(2x2, 3x3) with AVX2: transforms without multiplications, 16 products
 * for four outputs. */
#include "core.h"
#include "unroll.h"

#include <immintrin.h>

#define OUT 2
#define OWN (8 * PK_QS8_OWN_TWO)
#define CHUNK_BYTES(cache) ((cache) / 2)
#define MOST 128

PK_INLINE void input_line(const __m256i d[4], __m256i t[4])
{
    t[0] = _mm256_sub_epi16(d[0], d[2]);
    t[1] = _mm256_add_epi16(d[1], d[2]);
    t[2] = _mm256_sub_epi16(d[2], d[1]);
    t[3] = _mm256_sub_epi16(d[1], d[3]);
}

/* Twice the numbers. */
PK_INLINE void weights_line(__m256i g0, __m256i g1, __m256i g2, __m256i u[4])
{
    const __m256i ends = _mm256_add_epi16(g0, g2);
    u[0] = _mm256_add_epi16(g0, g0);
    u[1] = _mm256_add_epi16(ends, g1);
    u[2] = _mm256_sub_epi16(ends, g1);
    u[3] = _mm256_add_epi16(g2, g2);
}

PK_INLINE void output_line(const __m256i m[4], __m256i y[2])
{
    y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], m[1]), m[2]);
    y[1] = _mm256_sub_epi32(_mm256_sub_epi32(m[1], m[2]), m[3]);
}

PK_INLINE __m256i unscaled(__m256i y)
{
    return _mm256_srai_epi32(y, 2);
}

#include "qs8_winograd_tile.h"

const struct pk_qs8_winograd pk_qs8_winograd_two = {scratch_size, run, pack_own};
