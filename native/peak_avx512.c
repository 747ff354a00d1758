/* Multiply-adds of fp32 on registers alone, and of int8 widened to int16, where there is no VNNI. */
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

/* Does `rounds` rounds; returns how many operations (a multiply-add is two) a round is. */
PK_EXPORT size_t pk_peak_int8_avx512(size_t rounds, int32_t *result)
{
    __m512i sums[PK_PEAK_SUMS];
    const __m512i factor = _mm512_set1_epi32(*result);
    PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++) sums[i] = _mm512_set1_epi32((int)i);
    for (size_t round = 0; round < rounds; round++) {
        PK_UNROLL for (size_t i = 0; i < PK_PEAK_SUMS; i++)
        {
            sums[i] = _mm512_add_epi32(sums[i], _mm512_madd_epi16(sums[i], factor));
            PK_KEEP(sums[i]);
        }
    }
    __m512i all = sums[0];
    PK_UNROLL for (size_t i = 1; i < PK_PEAK_SUMS; i++) all = _mm512_add_epi32(all, sums[i]);
    int32_t lanes[16];
    _mm512_storeu_si512(lanes, all);
    *result = lanes[0];
    return (size_t)PK_PEAK_SUMS * 32 * 2;
}
