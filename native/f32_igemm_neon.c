/* fp32 products with NEON: tiles of up to 6 rows x 16 columns, 24 sums in registers. A vector of the
 * tile is a pair of registers. */
#include "f32_igemm.h"
#include "f32_transpose_neon.h"
#include "neon.h"
#include "unroll.h"

#define WIDTH 8
#define REGISTER 4 /* floats */
#define ROWS 6

/* The columns of one channel by lane `lane` of each row's `inputs`. */
#define STEP(lane)                                                                                 \
    do {                                                                                           \
        PK_UNROLL for (size_t v = 0; v < registers; v++) {                                         \
            const float32x4_t column = vld1q_f32(weights + v * REGISTER);                          \
            PK_UNROLL for (size_t m = 0; m < rows; m++) {                                          \
                sums[m][v] = vfmaq_laneq_f32(sums[m][v], column, inputs[m], lane);                 \
                PK_KEEP(sums[m][v]);                                                               \
            }                                                                                      \
        }                                                                                          \
        weights += registers * REGISTER;                                                           \
    } while (0)

PK_INLINE void panel_of(const struct pk_f32_tile *tile, const size_t rows, const size_t vectors,
                        const size_t panel, const size_t columns)
{
    const size_t registers = vectors * (WIDTH / REGISTER);
    float32x4_t sums[ROWS][2 * WIDTH / REGISTER];
    float *const first = tile->output + panel * registers * REGISTER;
    const size_t skipped = panel * tile->panel_stride;
    PK_UNROLL for (size_t v = 0; v < registers; v++) {
        const size_t left = columns > v * REGISTER ? columns - v * REGISTER : 0;
        PK_UNROLL for (size_t m = 0; m < rows; m++) {
            const size_t at = m * tile->output_stride + v * REGISTER;
            sums[m][v] = tile->bias ? vld1q_f32(tile->bias + skipped + v * REGISTER)
                                    : pk_load_floats(left ? first + at : first, left);
        }
    }
    const float *const *pointers = tile->inputs;
    for (size_t t = 0; t < tile->taps; t++, pointers += PK_F32_IGEMM_ROWS) {
        const float *weights = tile->weights[t] + skipped;
        const float *input[ROWS];
        PK_UNROLL for (size_t m = 0; m < rows; m++) input[m] = pointers[m] + tile->offset;
        size_t left = tile->channels;
        for (; left >= 4; left -= 4) {
            float32x4_t inputs[ROWS];
            PK_UNROLL for (size_t m = 0; m < rows; m++) {
                inputs[m] = vld1q_f32(input[m]);
                input[m] += 4;
            }
            STEP(0);
            STEP(1);
            STEP(2);
            STEP(3);
        }
        for (; left; left--) {
            float32x4_t inputs[ROWS];
            PK_UNROLL for (size_t m = 0; m < rows; m++) inputs[m] = vld1q_dup_f32(input[m]++);
            STEP(0);
        }
    }
    const float32x4_t min = vdupq_n_f32(tile->min), max = vdupq_n_f32(tile->max);
    PK_UNROLL for (size_t m = 0; m < rows; m++) {
        PK_UNROLL for (size_t v = 0; v < registers; v++) {
            const float32x4_t result = vminq_f32(max, vmaxq_f32(min, sums[m][v]));
            if (columns > v * REGISTER)
                pk_store_floats(first + m * tile->output_stride + v * REGISTER, result,
                                columns - v * REGISTER);
        }
    }
}

#include "f32_igemm_tile.h"

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1x1, tile_1x2}, {tile_2x1, tile_2x2}, {tile_3x1, tile_3x2},
    {tile_4x1, tile_4x2}, {tile_5x1, tile_5x2}, {tile_6x1, tile_6x2},
};

static void transpose(float *to, size_t stride, const float *from, size_t step, int past)
{
    (void)past;
    pk_transpose(to, stride, from, step);
}

const struct pk_f32_igemm_kernel pk_f32_igemm_neon = {
    "neon 6x16", PK_ISA_NEON, ROWS, WIDTH, 2, tiles, 4, transpose, 0,
};
