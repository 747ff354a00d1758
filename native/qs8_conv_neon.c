/* int8 convolution with NEON alone: sixteen values a step. Two products fit 16 bits if no weight is
 * -128, for which each channel of a panel is looked through; else each is added up by itself. */
#define ROWS 3
#define PANELS 1

#include "qs8_conv_128.h"

#define DEPTH 16

PK_INLINE int32x4_t multiply_add(int32x4_t sum, int8x16_t x, int8x16_t w, const int exact)
{
    int16x8_t products = vmull_s8(vget_low_s8(x), vget_low_s8(w));
    if (!exact)
        return vpadalq_s16(sum, vmlal_high_s8(products, x, w));
    sum = vpadalq_s16(sum, products);
    return vpadalq_s16(sum, vmull_high_s8(x, w));
}

/* Each channel has four sums, of every fourth pair of values. */
PK_INLINE void run_with(const struct pk_qs8_tile *t, size_t pixel, const int rows, const int exact,
                        const enum pk_qs8_form form)
{
    int32x4_t sums[ROWS][LANES];
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        PK_UNROLL
        for (int c = 0; c < LANES; c++)
            sums[r][c] = vdupq_n_s32(0);
    }
    const int8_t *weights = (const int8_t *)t->panel +
                            LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t s = 0; s < t->segment_count; s++) {
        const int8_t *a[ROWS];
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] = (const int8_t *)t->rows[pixel + r] + t->segments[s];
        for (size_t left = t->segment_depth; left; left--, weights += LANES * DEPTH) {
            int8x16_t x[ROWS];
            PK_UNROLL
            for (int r = 0; r < rows; r++, a[r - 1] += DEPTH)
                x[r] = vld1q_s8(a[r]);
            PK_UNROLL
            for (int c = 0; c < LANES; c++) {
                const int8x16_t w = vld1q_s8(weights + c * DEPTH);
                PK_UNROLL
                for (int r = 0; r < rows; r++) {
                    sums[r][c] = multiply_add(sums[r][c], x[r], w, exact);
                    PK_IN_ORDER(sums[r][c]);
                }
            }
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        int32x4_t row[VECTORS];
        PK_UNROLL
        for (int v = 0; v < VECTORS; v++) {
            const int32x4_t *const four = sums[r] + 4 * v;
            const int32x4_t sum =
                vpaddq_s32(vpaddq_s32(four[0], four[1]), vpaddq_s32(four[2], four[3]));
            row[v] = vaddq_s32(sum, start_of(t, 0, v, form));
        }
        put(t, pixel + r, 1, form, row);
    }
}

/* So many pixels are worth looking through the weights. */
#define ENOUGH 6

static int has_lowest(const struct pk_qs8_tile *t, enum pk_qs8_form form)
{
    const int8_t *const weights = (const int8_t *)t->panel +
                                  LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    int8x16_t least = vdupq_n_s8(127);
    for (size_t i = t->segment_count * t->segment_depth * LANES * DEPTH; i; i -= DEPTH)
        least = vminq_s8(least, vld1q_s8(weights + i - DEPTH));
    return vminvq_s8(least) == -128;
}

PK_INLINE void run_rows(const struct pk_qs8_tile *t, size_t pixels, const int exact,
                        const enum pk_qs8_form form)
{
    size_t p = 0;
    for (; p + ROWS <= pixels; p += ROWS)
        run_with(t, p, ROWS, exact, form);
    for (; p < pixels; p++)
        run_with(t, p, 1, exact, form);
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    const int exact = pixels < ENOUGH || has_lowest(t, form);
    if (form == PK_QS8_DYNAMIC)
        exact ? run_rows(t, pixels, 1, PK_QS8_DYNAMIC) : run_rows(t, pixels, 0, PK_QS8_DYNAMIC);
    else
        exact ? run_rows(t, pixels, 1, PK_QS8_PREPARED) : run_rows(t, pixels, 0, PK_QS8_PREPARED);
}

const struct pk_qs8_kernels pk_qs8_neon = {
    .name = "neon 3x8", .lanes = LANES, .depth = DEPTH, .element = 1, .panels = PANELS, .rows = ROWS,
    .prepare = prepare, .tiles = tiles, .quantize = quantize,
};
