/* int8 depthwise convolution with SDOT: four rows of taps, interleaved. */
#include "core.h"
#include "unroll.h"

#include <arm_neon.h>

#define DEPTH 4
#define TAPS 64

/* Four channels in each vector, four rows of taps in each channel. */
struct column {
    int8x16_t values[4];
};

/* Reads up to 15 bytes beyond the channels (PK_OVERREAD). What stands in for rows that are not there
 * meets weights of zero. */
PK_INLINE struct column load_column(const int8_t *const *rows, const int count, size_t offset)
{
    struct column column;
    const int8x16_t a = vld1q_s8(rows[0] + offset);
    const int8x16_t b = count > 1 ? vld1q_s8(rows[1] + offset) : a;
    const int8x16_t c = count > 2 ? vld1q_s8(rows[2] + offset) : a;
    const int8x16_t d = count > 3 ? vld1q_s8(rows[3] + offset) : c;
    const int16x8_t low_ab = vreinterpretq_s16_s8(vzip1q_s8(a, b));
    const int16x8_t high_ab = vreinterpretq_s16_s8(vzip2q_s8(a, b));
    const int16x8_t low_cd = count > 2 ? vreinterpretq_s16_s8(vzip1q_s8(c, d)) : low_ab;
    const int16x8_t high_cd = count > 2 ? vreinterpretq_s16_s8(vzip2q_s8(c, d)) : high_ab;
    column.values[0] = vreinterpretq_s8_s16(vzip1q_s16(low_ab, low_cd));
    column.values[1] = vreinterpretq_s8_s16(vzip2q_s16(low_ab, low_cd));
    column.values[2] = vreinterpretq_s8_s16(vzip1q_s16(high_ab, high_cd));
    column.values[3] = vreinterpretq_s8_s16(vzip2q_s16(high_ab, high_cd));
    return column;
}

PK_INLINE void multiply_add(int32x4_t *sums, const struct column *column, const char *taps)
{
    PK_UNROLL
    for (int v = 0; v < 4; v++)
        sums[v] = vdotq_s32(sums[v], column->values[v], vld1q_s8((const int8_t *)taps + 16 * v));
}

#include "qs8_dwconv_128.h"

const struct pk_qs8_dwkernels pk_qs8_dw_dotprod = {
    .name = "dotprod", .depth = DEPTH, .weight = 1, .outputs = PK_QS8_DW_OUTPUTS,
    .widths = {CHANNELS, CHANNELS, CHANNELS}, .runs = {run, run, run}, .channel = channel,
};
