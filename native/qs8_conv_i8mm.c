/* int8 convolution with SMMLA: two rows by two channels, eight values a step. */
#define ROWS 6
#define PANELS 2

#include "qs8_conv_128.h"

#define PAIRS ((ROWS + 1) / 2) /* of rows */

/* Eight values of each of two rows, which move on. */
PK_INLINE int8x16_t pair_of(const int8_t **rows)
{
    const int64x2_t first = vreinterpretq_s64_s8(vcombine_s8(vld1_s8(rows[0]), vdup_n_s8(0)));
    const int64x2_t both = vld1q_lane_s64((const int64_t *)rows[1], first, 1);
    rows[0] += 8;
    rows[1] += 8;
    return vreinterpretq_s8_s64(both);
}

/* Sums are those of a pair of rows and a pair of channels. A last, single row is its own pair. */
PK_INLINE void run(const struct pk_qs8_tile *t, size_t pixel, const int rows, const int panels,
                   const enum pk_qs8_form form)
{
    const int pairs = (rows + 1) / 2, columns = panels * LANES / 2;
    int32x4_t sums[PAIRS][PANELS * LANES / 2];
    PK_UNROLL
    for (int c = 0; c < columns; c++) {
        const int32x4_t start = start_of(t, c / 4, c % 4 / 2, form);
        const int32x2_t two = c % 2 ? vget_high_s32(start) : vget_low_s32(start);
        PK_UNROLL
        for (int i = 0; i < pairs; i++)
            sums[i][c] = vcombine_s32(two, two);
    }
    const size_t panel_size = t->panel_size;
    const int8_t *weights = (const int8_t *)t->panel +
                            LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t s = 0; s < t->segment_count; s++) {
        const int8_t *a[2 * PAIRS];
        PK_UNROLL
        for (int r = 0; r < 2 * pairs; r++)
            a[r] = (const int8_t *)t->rows[pixel + (r < rows ? r : rows - 1)] + t->segments[s];
        for (size_t left = t->segment_depth; left; left--, weights += LANES * 8) {
            int8x16_t x[PAIRS];
            PK_UNROLL
            for (int i = 0; i < pairs; i++)
                x[i] = pair_of(&a[2 * i]);
            PK_UNROLL
            for (int c = 0; c < columns; c++) {
                const int8x16_t w = vld1q_s8(weights + c / 4 * panel_size + c % 4 * 16);
                PK_UNROLL
                for (int i = 0; i < pairs; i++) {
                    sums[i][c] = vmmlaq_s32(sums[i][c], x[i], w);
                    PK_KEEP(sums[i][c]);
                }
            }
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        int32x4_t row[PANELS * VECTORS];
        PK_UNROLL
        for (int v = 0; v < panels * VECTORS; v++) {
            const int64x2_t first = vreinterpretq_s64_s32(sums[r / 2][2 * v]);
            const int64x2_t second = vreinterpretq_s64_s32(sums[r / 2][2 * v + 1]);
            row[v] = vreinterpretq_s32_s64(r % 2 ? vtrn2q_s64(first, second)
                                                 : vtrn1q_s64(first, second));
        }
        put(t, pixel + r, panels, form, row);
    }
}

#include "qs8_conv_128_tiles.h"

const struct pk_qs8_kernels pk_qs8_i8mm = {
    .name = "i8mm 6x16", .lanes = LANES, .depth = 8, .element = 1, .panels = PANELS, .rows = ROWS,
    .prepare = prepare, .tiles = tiles, .quantize = quantize,
};
