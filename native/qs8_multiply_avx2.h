/* Products of int16 matrices with AVX2, by Winograd's inner product (1968), which has half of the
 * multiplications. Of values a and weights w in fours,
 *
 *     (a0 + w2)(a2 + w0) + (a1 + w3)(a3 + w1) = a0 w0 + a1 w1 + a2 w2 + a3 w3
 *                                             + a0 a2 + a1 a3 + w0 w2 + w1 w3
 *
 * where what is too much are the own products of the row, and those of the channel: they are found
 * once, and taken back. Additions go to any of four ports, vpmaddwd to two. It is exact modulo 2^32;
 * the sum of a value and a weight must fit 16 bits.
 */
#ifndef PENSTOCK_QS8_MULTIPLY_AVX2_H
#define PENSTOCK_QS8_MULTIPLY_AVX2_H

#include "core.h"
#include "unroll.h"

#include <immintrin.h>

/* The own products of a row of `pairs` times two values; the last pair has none if they are odd. They
 * are the sum of the lanes. */
PK_INLINE __m256i pk_own_of_row(const int16_t *row, size_t pairs)
{
    const __m256i *x = (const __m256i *)row;
    __m256i sums = _mm256_setzero_si256();
    size_t left = pairs / 2;
    for (; left >= 8; left -= 8, x += 2) {
        const __m256 a = _mm256_castsi256_ps(_mm256_loadu_si256(x));
        const __m256 b = _mm256_castsi256_ps(_mm256_loadu_si256(x + 1));
        const __m256i first = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        const __m256i second = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(first, second));
    }
    if (left >= 4) {
        const __m256i a = _mm256_loadu_si256(x++);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, _mm256_srli_epi64(a, 32)));
        left -= 4;
    }
    for (const int16_t *at = (const int16_t *)x; left; left--, at += 4) {
        int64_t four;
        __builtin_memcpy(&four, at, 8);
        const __m128i a = _mm_cvtsi64_si128(four);
        const __m128i own = _mm_madd_epi16(a, _mm_srli_epi64(a, 32));
        sums = _mm256_add_epi32(sums, _mm256_zextsi128_si256(own));
    }
    return sums;
}

PK_INLINE int32_t pk_sum_of_lanes(__m256i x)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    half = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 1));
    return _mm_cvtsi128_si32(half);
}

/* The sums of the lanes of each of four vectors. */
PK_INLINE __m128i pk_sums_of_lanes(const __m256i x[4])
{
    const __m256i a = _mm256_hadd_epi32(x[0], x[1]), b = _mm256_hadd_epi32(x[2], x[3]);
    const __m256i all = _mm256_hadd_epi32(a, b);
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* ... of 16 channels: two vectors of weights for each two values. */
PK_INLINE void pk_own_of_channels(const int16_t *weights, size_t pairs, __m256i own[2])
{
    own[0] = own[1] = _mm256_setzero_si256();
    for (size_t i = 0; i < pairs / 2; i++, weights += 64) {
        PK_UNROLL
        for (int p = 0; p < 2; p++) {
            const __m256i first = _mm256_loadu_si256((const __m256i *)(weights + 16 * p));
            const __m256i second = _mm256_loadu_si256((const __m256i *)(weights + 32 + 16 * p));
            own[p] = _mm256_add_epi32(own[p], _mm256_madd_epi16(first, second));
        }
    }
}

/* Four values of `rows` (a constant, up to 4) rows by 16 channels; `w`: by pairs and panels. The order
 * is what the processor's ports keep up with best. */
PK_INLINE void pk_multiply_four(const int rows, __m256i sums[4][2], const char *const a[4],
                                const size_t offset, const __m256i w[2][2])
{
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        int32_t first, second;
        __builtin_memcpy(&first, a[r] + offset, 4);
        __builtin_memcpy(&second, a[r] + offset + 4, 4);
        const __m256i x = _mm256_set1_epi32(first), y = _mm256_set1_epi32(second);
        __m256i left[2], right[2];
        PK_UNROLL
        for (int p = 0; p < 2; p++) {
            left[p] = _mm256_add_epi16(x, w[1][p]);
            PK_IN_ORDER(left[p]);
            right[p] = _mm256_add_epi16(y, w[0][p]);
            PK_IN_ORDER(right[p]);
        }
        PK_UNROLL
        for (int p = 0; p < 2; p++) {
            left[p] = _mm256_madd_epi16(left[p], right[p]);
            PK_IN_ORDER(left[p]);
        }
        PK_UNROLL
        for (int p = 0; p < 2; p++) {
            sums[r][p] = _mm256_add_epi32(sums[r][p], left[p]);
            PK_IN_ORDER(sums[r][p]);
        }
    }
}

/* `pairs` times two values of `rows` rows, whose next ones `a` points to, by 16 channels. Weights lie
 * `pair` bytes from one two values to the next, `panel` bytes from the first 8 channels to the
 * others. The own products are in what is added to `sums`. */
PK_INLINE void pk_multiply_run(const int rows, __m256i sums[4][2], const char *a[4], const char *w,
                               size_t pairs, const size_t pair, size_t panel)
{
#define FOUR(offset)                                                                               \
    do {                                                                                           \
        __m256i weights[2][2];                                                                     \
        PK_UNROLL                                                                                  \
        for (int i = 0; i < 4; i++)                                                                \
            weights[i / 2][i % 2] = _mm256_loadu_si256(                                            \
                (const __m256i *)(w + pair * (2 * (offset) + i / 2) + (size_t)(i % 2) * panel));   \
        pk_multiply_four(rows, sums, a, 8 * (offset), weights);                                    \
    } while (0)
    for (; pairs >= 4; pairs -= 4) {
        FOUR(0);
        FOUR(1);
        w += 4 * pair;
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] += 16;
    }
    if (pairs >= 2) {
        FOUR(0);
        pairs -= 2;
        w += 2 * pair;
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] += 8;
    }
#undef FOUR
    if (pairs) {
        PK_UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t two;
            __builtin_memcpy(&two, a[r], 4);
            PK_UNROLL
            for (int p = 0; p < 2; p++)
                sums[r][p] = _mm256_add_epi32(
                    sums[r][p],
                    _mm256_madd_epi16(_mm256_set1_epi32(two),
                                      _mm256_loadu_si256((const __m256i *)(w + (size_t)p * panel))));
        }
    }
}

/* `rows` rows of `input`, `stride` values apart, by 16 channels: two vectors of weights for each two
 * values. 16 sums a row, the own products among them. */
PK_INLINE void pk_multiply_rows(const int rows, const int16_t *input, size_t stride,
                                const int16_t *weights, size_t pairs, int32_t *to)
{
    __m256i sums[4][2];
    const char *a[4];
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        a[r] = (const char *)(input + (size_t)r * stride);
    }
    pk_multiply_run(rows, sums, a, (const char *)weights, pairs, 64, 32);
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_si256((__m256i *)(to + 16 * r), sums[r][0]);
        _mm256_storeu_si256((__m256i *)(to + 16 * r + 8), sums[r][1]);
    }
}
#endif
