/* Means over the pixels of int8 images: sums with NEON, 16 channels in two registers. */
#include "qs8_mean.h"
#include "unroll.h"

#include <arm_neon.h>

#define GROUPS 4

PK_INLINE void sum_groups(int32_t *to, const int8_t *from, size_t pixels, size_t stride,
                          const int groups)
{
    int32x4_t sums[GROUPS][4];
    PK_UNROLL
    for (int g = 0; g < groups; g++)
        sums[g][0] = sums[g][1] = sums[g][2] = sums[g][3] = vdupq_n_s32(0);
    while (pixels) {
        const size_t count = pk_min(pixels, PK_QS8_MEAN_RUN);
        int16x8_t part[GROUPS][2];
        PK_UNROLL
        for (int g = 0; g < groups; g++)
            part[g][0] = part[g][1] = vdupq_n_s16(0);
        for (size_t p = 0; p < count; p++, from += stride) {
            PK_UNROLL
            for (int g = 0; g < groups; g++) {
                const int8x16_t x = vld1q_s8(from + 16 * g);
                part[g][0] = vaddw_s8(part[g][0], vget_low_s8(x));
                part[g][1] = vaddw_high_s8(part[g][1], x);
            }
        }
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            PK_UNROLL
            for (int h = 0; h < 2; h++) {
                sums[g][2 * h] = vaddw_s16(sums[g][2 * h], vget_low_s16(part[g][h]));
                sums[g][2 * h + 1] = vaddw_high_s16(sums[g][2 * h + 1], part[g][h]);
            }
        }
        pixels -= count;
    }
    PK_UNROLL
    for (int g = 0; g < groups; g++) {
        PK_UNROLL
        for (int v = 0; v < 4; v++)
            vst1q_s32(to + 16 * g + 4 * v, sums[g][v]);
    }
}

static void sums(int32_t to[], const int8_t *from, size_t pixels, size_t stride, size_t channels)
{
    size_t c = 0;
    for (; c + 16 * GROUPS <= channels; c += 16 * GROUPS)
        sum_groups(to + c, from + c, pixels, stride, GROUPS);
    for (; c + 16 < channels; c += 32)
        sum_groups(to + c, from + c, pixels, stride, 2);
    if (c < channels)
        sum_groups(to + c, from + c, pixels, stride, 1);
}

const struct pk_qs8_mean_kernel pk_qs8_mean_neon = {"neon", sums};
