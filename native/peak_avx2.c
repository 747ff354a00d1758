/* Multiply-adds of fp32 on registers alone. */
#include "peak.h"

#include <immintrin.h>

/* Does `rounds` rounds; returns how many operations (a multiply-add is two) a round is. */
PK_EXPORT size_t pk_peak_avx2(size_t rounds, float *result)
{
    __m256 sums[PK_PEAK_SUMS];
    const __m256 factor = _mm256_set1_ps(*result);
    PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++) sums[i] = _mm256_set1_ps((float)i);
    for (size_t round = 0; round < rounds; round++) {
        PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++)
        {
            sums[i] = _mm256_fmadd_ps(sums[i], factor, factor);
            PK_KEEP(sums[i]);
        }
    }
    __m256 all = sums[0];
    PK_UNROLL for (size_t i = 1; i < PK_PEAK_SUMS; i++) all = _mm256_add_ps(all, sums[i]);
    float lanes[8];
    _mm256_storeu_ps(lanes, all);
    *result = lanes[0];
    return (size_t)PK_PEAK_SUMS * 8 * 2;
}
