/* int8 convolution by Winograd's F(3x3, 3x3) with AVX2, at the points 0, 1, -1, 2 and infinity: 25
 * products for nine outputs. */
#include "core.h"
#include "unroll.h"

#include <immintrin.h>

#define OUT 3
#define OWN (8 * PK_QS8_OWN_THREE)
#define CHUNK_BYTES(cache) (4 * (cache))
#define MOST 128

PK_INLINE __m256i twice(__m256i x)
{
    return _mm256_add_epi16(x, x);
}

/* In the second and the third number the sign is that of the weights' numbers too. */
PK_INLINE void input_line(const __m256i d[5], __m256i t[5])
{
    const __m256i outer = _mm256_sub_epi16(d[3], d[1]), inner = _mm256_sub_epi16(d[3], d[2]);
    t[0] = _mm256_add_epi16(twice(_mm256_sub_epi16(d[0], d[2])), outer);
    t[1] = _mm256_sub_epi16(twice(d[1]), inner);
    t[2] = _mm256_sub_epi16(twice(_mm256_sub_epi16(d[2], d[1])), inner);
    t[3] = outer;
    t[4] = _mm256_sub_epi16(_mm256_sub_epi16(d[4], d[2]), twice(outer));
}

/* Six times the numbers. */
PK_INLINE void weights_line(__m256i g0, __m256i g1, __m256i g2, __m256i u[5])
{
    const __m256i ends = _mm256_add_epi16(g0, g2), sum = _mm256_add_epi16(ends, g1);
    const __m256i thrice = _mm256_add_epi16(twice(g2), g2);
    u[0] = _mm256_add_epi16(twice(g0), g0);
    u[1] = _mm256_add_epi16(twice(sum), sum);
    u[2] = _mm256_sub_epi16(ends, g1);
    u[3] = _mm256_add_epi16(g0, twice(_mm256_add_epi16(g1, twice(g2))));
    u[4] = twice(thrice);
}

PK_INLINE void output_line(const __m256i m[5], __m256i y[3])
{
    const __m256i sum = _mm256_add_epi32(m[1], m[2]), two = _mm256_add_epi32(m[3], m[3]);
    y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], sum), m[3]);
    y[1] = _mm256_add_epi32(_mm256_sub_epi32(m[1], m[2]), two);
    y[2] = _mm256_add_epi32(_mm256_add_epi32(sum, m[4]), _mm256_add_epi32(two, two));
}

/* Modulo 2^32 the division by nine is a product, whatever was lost above. */
PK_INLINE __m256i unscaled(__m256i y)
{
    return _mm256_srai_epi32(_mm256_mullo_epi32(y, _mm256_set1_epi32(0x38e38e39)), 2);
}

#include "qs8_winograd_tile.h"

const struct pk_qs8_winograd pk_qs8_winograd_three = {scratch_size, run, pack_own};
