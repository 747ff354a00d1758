/* Multiply-adds of int8 on registers alone: four values at a time. */
#include "peak.h"

#include <immintrin.h>

/* Does `rounds` rounds; returns how many operations (a multiply-add is two) a round is. */
PK_EXPORT size_t pk_peak_int8_avxvnni(size_t rounds, int32_t *result)
{
    __m256i sums[PK_PEAK_SUMS];
    const __m256i factor = _mm256_set1_epi32(*result);
    PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++) sums[i] = _mm256_set1_epi32((int)i);
    for (size_t round = 0; round < rounds; round++) {
        PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++)
        {
            sums[i] = _mm256_dpbusd_avx_epi32(sums[i], factor, factor);
            PK_KEEP(sums[i]);
        }
    }
    __m256i all = sums[0];
    PK_UNROLL for (size_t i = 1; i < PK_PEAK_SUMS; i++) all = _mm256_add_epi32(all, sums[i]);
    int32_t lanes[8];
    _mm256_storeu_si256((__m256i *)lanes, all);
    *result = lanes[0];
    return (size_t)PK_PEAK_SUMS * 32 * 2;
}
