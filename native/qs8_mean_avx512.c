/* Means over the pixels of int8 images: sums with AVX-512, 32 channels in a register. */
#include "qs8_mean.h"
#include "unroll.h"

#include <immintrin.h>

#define GROUPS 4

/* The last group has those channels that `mask` says. */
PK_INLINE void sum_groups(int32_t *to, const int8_t *from, size_t pixels, size_t stride,
                          const int groups, __mmask32 mask)
{
    __m512i sums[GROUPS][2];
    PK_UNROLL
    for (int g = 0; g < groups; g++)
        sums[g][0] = sums[g][1] = _mm512_setzero_si512();
    while (pixels) {
        const size_t count = pk_min(pixels, PK_QS8_MEAN_RUN);
        __m512i part[GROUPS];
        PK_UNROLL
        for (int g = 0; g < groups; g++)
            part[g] = _mm512_setzero_si512();
        for (size_t p = 0; p < count; p++, from += stride) {
            PK_UNROLL
            for (int g = 0; g < groups; g++) {
                const __m256i x = g < groups - 1
                                      ? _mm256_loadu_si256((const __m256i *)(from + 32 * g))
                                      : _mm256_maskz_loadu_epi8(mask, from + 32 * g);
                part[g] = _mm512_add_epi16(part[g], _mm512_cvtepi8_epi16(x));
            }
        }
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            const __m256i low = _mm512_castsi512_si256(part[g]);
            const __m256i high = _mm512_extracti64x4_epi64(part[g], 1);
            sums[g][0] = _mm512_add_epi32(sums[g][0], _mm512_cvtepi16_epi32(low));
            sums[g][1] = _mm512_add_epi32(sums[g][1], _mm512_cvtepi16_epi32(high));
        }
        pixels -= count;
    }
    PK_UNROLL
    for (int g = 0; g < groups; g++) {
        _mm512_storeu_si512(to + 32 * g, sums[g][0]);
        _mm512_storeu_si512(to + 32 * g + 16, sums[g][1]);
    }
}

static void sums(int32_t to[], const int8_t *from, size_t pixels, size_t stride, size_t channels)
{
    const size_t groups = pk_divide_up(channels, 32), last = channels - 32 * (groups - 1);
    const __mmask32 mask = last < 32 ? (1u << last) - 1 : ~0u;
    switch (groups) {
        case 4: sum_groups(to, from, pixels, stride, 4, mask); break;
        case 3: sum_groups(to, from, pixels, stride, 3, mask); break;
        case 2: sum_groups(to, from, pixels, stride, 2, mask); break;
        case 1: sum_groups(to, from, pixels, stride, 1, mask); break;
    }
}

const struct pk_qs8_mean_kernel pk_qs8_mean_avx512 = {"avx512", sums};
