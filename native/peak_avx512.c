/* Multiply-adds of fp32 on registers alone. */
#include "peak.h"

#include <immintrin.h>

/* Does `rounds` rounds; returns how many operations (a multiply-add is two) a round is. */
PK_EXPORT size_t pk_peak_avx512(size_t rounds, float *result)
{
    __m512 sums[PK_PEAK_SUMS];
    const __m512 factor = _mm512_set1_ps(*result);
    PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++) sums[i] = _mm512_set1_ps((float)i);
    for (size_t round = 0; round < rounds; round++) {
        PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++)
        {
            sums[i] = _mm512_fmadd_ps(sums[i], factor, factor);
            PK_KEEP(sums[i]);
        }
    }
    __m512 all = sums[0];
    PK_UNROLL for (size_t i = 1; i < PK_PEAK_SUMS; i++) all = _mm512_add_ps(all, sums[i]);
    float lanes[16];
    _mm512_storeu_ps(lanes, all);
    *result = lanes[0];
    return (size_t)PK_PEAK_SUMS * 16 * 2;
}
