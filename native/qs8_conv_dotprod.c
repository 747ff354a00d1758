/* int8 convolution with SDOT: four values a step, both operands signed, so the input is taken as it
 * is. */
#define ROWS 6
#define PANELS 2

#include "qs8_conv_128.h"

/* A row by a panel has four times the sums, as each has to wait for the one before it. */
PK_INLINE void run(const struct pk_qs8_tile *t, size_t pixel, const int rows, const int panels,
                   const enum pk_qs8_form form)
{
    const int vectors = panels * VECTORS, spread = rows == 1 && panels == 1;
    int32x4_t sums[ROWS][PANELS * VECTORS];
    PK_UNROLL
    for (int r = 0; r < (spread ? 4 : rows); r++) {
        PK_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[r][v] = r < rows ? start_of(t, v / VECTORS, v % VECTORS, form) : vdupq_n_s32(0);
    }
    const size_t panel_size = t->panel_size;
    const int8_t *weights = (const int8_t *)t->panel +
                            LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t s = 0; s < t->segment_count; s++) {
        const int8_t *a[ROWS];
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] = (const int8_t *)t->rows[pixel + r] + t->segments[s];
        size_t left = t->segment_depth;
#define STEP(lane)                                                                                 \
    do {                                                                                           \
        PK_UNROLL                                                                                  \
        for (int v = 0; v < vectors; v++) {                                                        \
            const int8x16_t w = vld1q_s8(weights + v / VECTORS * panel_size + 32 * (lane) +        \
                                         v % VECTORS * 16);                                        \
            PK_UNROLL                                                                              \
            for (int r = 0; r < rows; r++) {                                                       \
                int32x4_t *const sum = &sums[spread ? (lane) : r][v];                              \
                *sum = vdotq_laneq_s32(*sum, w, x[r], lane);                                       \
                PK_KEEP(*sum);                                                                     \
            }                                                                                      \
        }                                                                                          \
    } while (0)
        for (; left >= 4; left -= 4, weights += 128) {
            int8x16_t x[ROWS];
            PK_UNROLL
            for (int r = 0; r < rows; r++, a[r - 1] += 16)
                x[r] = vld1q_s8(a[r]);
            STEP(0);
            STEP(1);
            STEP(2);
            STEP(3);
        }
        for (; left; left--, weights += 32) {
            int8x16_t x[ROWS];
            PK_UNROLL
            for (int r = 0; r < rows; r++, a[r - 1] += 4)
                x[r] = vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)a[r]));
            STEP(0);
        }
#undef STEP
    }
    if (spread) {
        PK_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[0][v] = vaddq_s32(vaddq_s32(sums[0][v], sums[1][v]),
                                   vaddq_s32(sums[2][v], sums[3][v]));
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        put(t, pixel + r, panels, form, sums[r]);
}

#include "qs8_conv_128_tiles.h"

const struct pk_qs8_kernels pk_qs8_dotprod = {
    .name = "dotprod 6x16", .lanes = LANES, .depth = 4, .element = 1, .panels = PANELS, .rows = ROWS,
    .prepare = prepare, .tiles = tiles, .quantize = quantize,
};
