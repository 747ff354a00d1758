/* Means over the pixels of int8 images: sums with AVX2, 16 channels in a register. */
#include "qs8_mean.h"
#include "unroll.h"

#include <immintrin.h>

#define GROUPS 4

PK_INLINE void sum_groups(int32_t *to, const int8_t *from, size_t pixels, size_t stride,
                          const int groups)
{
    __m256i sums[GROUPS][2];
    PK_UNROLL
    for (int g = 0; g < groups; g++)
        sums[g][0] = sums[g][1] = _mm256_setzero_si256();
    while (pixels) {
        const size_t count = pk_min(pixels, PK_QS8_MEAN_RUN);
        __m256i part[GROUPS];
        PK_UNROLL
        for (int g = 0; g < groups; g++)
            part[g] = _mm256_setzero_si256();
        for (size_t p = 0; p < count; p++, from += stride) {
            PK_UNROLL
            for (int g = 0; g < groups; g++) {
                const __m128i x = _mm_loadu_si128((const __m128i *)(from + 16 * g));
                part[g] = _mm256_add_epi16(part[g], _mm256_cvtepi8_epi16(x));
            }
        }
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            const __m128i low = _mm256_castsi256_si128(part[g]);
            const __m128i high = _mm256_extracti128_si256(part[g], 1);
            sums[g][0] = _mm256_add_epi32(sums[g][0], _mm256_cvtepi16_epi32(low));
            sums[g][1] = _mm256_add_epi32(sums[g][1], _mm256_cvtepi16_epi32(high));
        }
        pixels -= count;
    }
    PK_UNROLL
    for (int g = 0; g < groups; g++) {
        _mm256_storeu_si256((__m256i *)(to + 16 * g), sums[g][0]);
        _mm256_storeu_si256((__m256i *)(to + 16 * g + 8), sums[g][1]);
    }
}

static void sums(int32_t to[], const int8_t *from, size_t pixels, size_t stride, size_t channels)
{
    size_t c = 0;
    for (; c + 16 * GROUPS <= channels; c += 16 * GROUPS)
        sum_groups(to + c, from + c, pixels, stride, GROUPS);
    switch (pk_divide_up(channels - c, 16)) {
        case 4: sum_groups(to + c, from + c, pixels, stride, 4); break;
        case 3: sum_groups(to + c, from + c, pixels, stride, 3); break;
        case 2: sum_groups(to + c, from + c, pixels, stride, 2); break;
        case 1: sum_groups(to + c, from + c, pixels, stride, 1); break;
    }
}

const struct pk_qs8_mean_kernel pk_qs8_mean_avx2 = {"avx2", sums};
