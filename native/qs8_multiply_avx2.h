/* Products of int16 matrices with AVX2, for algorithms that multiply what they have made of int8. */
#ifndef PENSTOCK_QS8_MULTIPLY_AVX2_H
#define PENSTOCK_QS8_MULTIPLY_AVX2_H

#include "core.h"
#include "unroll.h"

#include <immintrin.h>

/* `rows` (a constant, up to 4) rows of `input`, `stride` values apart, by 16 channels: the weights of
 * all channels for two values at a time, `pairs` times. 16 sums a row. */
PK_INLINE void pk_multiply_rows(const int rows, const int16_t *input, size_t stride,
                                const int16_t *weights, size_t pairs, int32_t *to)
{
    __m256i sums[4][2];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    const char *a[4];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        a[r] = (const char *)(input + (size_t)r * stride);
    const char *w = (const char *)weights;
#define STEP(offset)                                                                               \
    do {                                                                                           \
        const __m256i w0 = _mm256_loadu_si256((const __m256i *)(w + 64 * (offset)));               \
        const __m256i w1 = _mm256_loadu_si256((const __m256i *)(w + 64 * (offset) + 32));          \
        PK_UNROLL                                                                                  \
        for (int r = 0; r < rows; r++) {                                                           \
            int32_t two;                                                                           \
            __builtin_memcpy(&two, a[r] + 4 * (offset), 4);                                        \
            const __m256i x = _mm256_set1_epi32(two);                                              \
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(x, w0));                   \
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(x, w1));                   \
            PK_KEEP(sums[r][0]);                                                                   \
            PK_KEEP(sums[r][1]);                                                                   \
        }                                                                                          \
    } while (0)
    size_t left = pairs;
    for (; left >= 4; left -= 4) {
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        w += 256;
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] += 16;
    }
    for (; left; left--) {
        STEP(0);
        w += 64;
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] += 4;
    }
#undef STEP
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_si256((__m256i *)(to + 16 * r), sums[r][0]);
        _mm256_storeu_si256((__m256i *)(to + 16 * r + 8), sums[r][1]);
    }
}
#endif
