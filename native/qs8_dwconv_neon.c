/* int8 depthwise convolution with NEON: inputs widened to int16, once for all outputs that read them. */
#include "core.h"

#include <arm_neon.h>

#define DEPTH 1
#define TAPS 32

struct column {
    int16x8_t low, high;
};

/* Reads up to 15 bytes beyond the channels (PK_OVERREAD). */
PK_INLINE struct column load_column(const int8_t *const *rows, const int count, size_t offset)
{
    (void)count;
    const int8x16_t values = vld1q_s8(rows[0] + offset);
    return (struct column){vmovl_s8(vget_low_s8(values)), vmovl_high_s8(values)};
}

PK_INLINE void multiply_add(int32x4_t *sums, const struct column *column, const char *taps)
{
    const int16x8_t low = vld1q_s16((const int16_t *)taps), high = vld1q_s16((const int16_t *)taps + 8);
    sums[0] = vmlal_s16(sums[0], vget_low_s16(column->low), vget_low_s16(low));
    sums[1] = vmlal_high_s16(sums[1], column->low, low);
    sums[2] = vmlal_s16(sums[2], vget_low_s16(column->high), vget_low_s16(high));
    sums[3] = vmlal_high_s16(sums[3], column->high, high);
}

#include "qs8_dwconv_128.h"

const struct pk_qs8_dwkernels pk_qs8_dw_neon = {
    .name = "neon", .depth = DEPTH, .weight = 2, .outputs = PK_QS8_DW_OUTPUTS,
    .widths = {CHANNELS, CHANNELS, CHANNELS}, .runs = {run, run, run}, .channel = channel,
};
