/* fp32 products in plain C: what other processors run, and what tests compare with. */
#include "f32_igemm.h"

#define WIDTH 4

PK_INLINE void panel_of(const struct pk_f32_tile *tile, size_t rows, size_t width, size_t panel,
                        size_t columns)
{
    const size_t skipped = panel * tile->panel_stride;
    for (size_t m = 0; m < rows; m++) {
        float *output = tile->output + m * tile->output_stride + panel * width;
        float sums[2 * WIDTH];
        for (size_t n = 0; n < width; n++)
            sums[n] = tile->bias ? tile->bias[skipped + n] : n < columns ? output[n] : 0.0f;
        for (size_t t = 0; t < tile->taps; t++) {
            const float *input = tile->inputs[t * PK_F32_IGEMM_ROWS + m] + tile->offset;
            const float *weights = tile->weights[t] + skipped;
            for (size_t k = 0; k < tile->channels; k++)
                for (size_t n = 0; n < width; n++)
                    sums[n] += input[k] * weights[k * width + n];
        }
        for (size_t n = 0; n < columns; n++) {
            const float low = sums[n] < tile->min ? tile->min : sums[n];
            output[n] = low > tile->max ? tile->max : low;
        }
    }
}

PK_INLINE void tile_of(const struct pk_f32_tile *tile, size_t rows, size_t width)
{
    for (size_t panel = 0; panel * width < tile->columns; panel++)
        panel_of(tile, rows, width, panel, pk_min(tile->columns - panel * width, width));
}

#define TILE(rows)                                                                                 \
    static void tile_##rows##x1(const struct pk_f32_tile *tile) { tile_of(tile, rows, WIDTH); }    \
    static void tile_##rows##x2(const struct pk_f32_tile *tile) { tile_of(tile, rows, 2 * WIDTH); }

TILE(1)
TILE(2)
TILE(3)
TILE(4)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1x1, tile_1x2},
    {tile_2x1, tile_2x2},
    {tile_3x1, tile_3x2},
    {tile_4x1, tile_4x2},
};

static void transpose(float *to, size_t stride, const float *from, size_t step, int past)
{
    (void)past;
    for (size_t i = 0; i < WIDTH; i++)
        for (size_t j = 0; j < WIDTH; j++)
            to[j * stride + i] = from[i * step + j];
}

const struct pk_f32_igemm_kernel pk_f32_igemm_scalar = {
    "scalar 4x8", PK_ISA_SCALAR, 4, WIDTH, 2, tiles, WIDTH, transpose, 0,
};
