/* int8 depthwise convolution in ARM's registers of 128 bits: blocks of up to 16 channels. A file that
 * includes this has defined DEPTH (rows of taps in a group), TAPS (bytes of the weights of a column),
 * `struct column`, `load_column(rows, count, offset)`, which makes one of `count` rows, and
 * `multiply_add(sums, column, taps)`. */
#include "neon.h"
#include "qs8_dwconv.h"
#include "qs8_dwconv_cases.h"
#include "unroll.h"

#define CHANNELS 16

PK_INLINE int16x8_t quantized(const int32x4_t *sums, const float *scales, int16x8_t zero_point)
{
    const float32x4_t a = vmulq_f32(vcvtq_f32_s32(sums[0]), vld1q_f32(scales));
    const float32x4_t b = vmulq_f32(vcvtq_f32_s32(sums[1]), vld1q_f32(scales + 4));
    const int16x8_t words =
        vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
    return vqaddq_s16(words, zero_point);
}

PK_INLINE void block(const struct pk_qs8_dwblock *b, const int outputs, const int width,
                     const int stride, const int shared)
{
    const char *const packed = b->packed;
    const float *const scales = (const float *)(packed + 4 * CHANNELS);
    const char *taps = packed + 8 * CHANNELS;
    const size_t columns_of = b->groups * DEPTH, offset = b->offset;
    int32x4_t sums[PK_QS8_DW_OUTPUTS][4];
    PK_UNROLL
    for (int o = 0; o < outputs; o++) {
        PK_UNROLL
        for (int v = 0; v < 4; v++)
            sums[o][v] = vld1q_s32((const int32_t *)packed + 4 * v);
    }
    if (shared) {
        const int groups = (width + DEPTH - 1) / DEPTH; /* of a square kernel */
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            const int8_t *const *rows = b->rows + DEPTH * g;
            const int count = width - DEPTH * g < DEPTH ? width - DEPTH * g : DEPTH;
            PK_UNROLL
            for (int c = 0; c < (outputs - 1) * stride + width; c++) {
                const struct column column = load_column(rows + c * DEPTH * groups, count, offset);
                PK_RELOAD;
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    const int x = c - o * stride;
                    if (x < 0 || x >= width)
                        continue;
                    multiply_add(sums[o], &column, taps + TAPS * x);
                    PK_UNROLL
                    for (int v = 0; v < 4; v++)
                        PK_IN_ORDER(sums[o][v]);
                }
            }
            taps += TAPS * width;
        }
    } else {
        for (size_t g = 0; g < b->groups; g++) {
            const int8_t *const *rows = b->rows + DEPTH * g;
            for (size_t x = 0; x < b->kernel_width; x++, taps += TAPS) {
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    const struct column column =
                        load_column(rows + (o * b->output_step + x * b->tap_step) * columns_of, DEPTH, offset);
                    multiply_add(sums[o], &column, taps);
                }
            }
        }
    }
    const int16x8_t zero_point = vdupq_n_s16((int16_t)b->zero_point);
    const int8x16_t min = vdupq_n_s8((int8_t)b->min), max = vdupq_n_s8((int8_t)b->max);
    PK_UNROLL
    for (int o = 0; o < outputs; o++) {
        const int8x8_t first = vqmovn_s16(quantized(sums[o], scales, zero_point));
        const int8x8_t second = vqmovn_s16(quantized(sums[o] + 2, scales + 8, zero_point));
        const int8x16_t bytes = vminq_s8(vmaxq_s8(vcombine_s8(first, second), min), max);
        pk_store_tail(b->output + (size_t)o * b->output_stride, bytes, b->channels);
    }
}

static void run(const struct pk_qs8_dwblock *b, size_t outputs, size_t stride, int shared)
{
    PK_QS8_DW_CASES(block)
}

static size_t channel(size_t width, size_t at)
{
    (void)width;
    return at;
}
