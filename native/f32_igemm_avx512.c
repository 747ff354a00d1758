/* fp32 products with AVX-512: tiles of up to 12 rows x 32 columns, 24 sums in registers. */
#include "f32_igemm.h"
#include "f32_transpose_avx512.h"
#include "unroll.h"

#include <immintrin.h>

#define WIDTH 16
#define ROWS 12

PK_INLINE void panel_of(const struct pk_f32_tile *tile, const size_t rows, const size_t vectors,
                        const size_t panel, const size_t columns)
{
    __m512 sums[ROWS][2];
    const size_t tail = pk_min(columns - (vectors - 1) * WIDTH, WIDTH);
    const __mmask16 mask = (__mmask16)((1u << tail) - 1);
    float *const first = tile->output + panel * vectors * WIDTH;
    const size_t skipped = panel * tile->panel_stride;
    if (tile->bias) {
        PK_UNROLL for (size_t v = 0; v < vectors; v++) {
            const __m512 bias = _mm512_loadu_ps(tile->bias + skipped + v * WIDTH);
            PK_UNROLL for (size_t m = 0; m < rows; m++) sums[m][v] = bias;
        }
    } else {
        PK_UNROLL for (size_t m = 0; m < rows; m++) {
            const float *output = first + m * tile->output_stride;
            PK_UNROLL for (size_t v = 0; v + 1 < vectors; v++)
                sums[m][v] = _mm512_loadu_ps(output + v * WIDTH);
            sums[m][vectors - 1] = _mm512_maskz_loadu_ps(mask, output + (vectors - 1) * WIDTH);
        }
    }
    const float *const *inputs = tile->inputs;
    const size_t channels = tile->channels, ahead = tile->ahead;
    for (size_t t = 0; t < tile->taps; t++, inputs += PK_F32_IGEMM_ROWS) {
        const float *weights = tile->weights[t] + skipped;
        const float *input[ROWS];
        PK_UNROLL for (size_t m = 0; m < rows; m++) input[m] = inputs[m] + tile->offset;
        for (size_t k = 0; k < channels; k++) {
            __m512 columns[2];
            PK_UNROLL for (size_t v = 0; v < vectors; v++)
                columns[v] = _mm512_loadu_ps(weights + v * WIDTH);
            PK_UNROLL for (size_t v = 0; v < vectors; v++)
                _mm_prefetch((const char *)(weights + ahead + v * WIDTH), _MM_HINT_T1);
            weights += vectors * WIDTH;
            PK_UNROLL for (size_t m = 0; m < rows; m++) {
                const __m512 row = _mm512_set1_ps(input[m][k]);
                PK_UNROLL for (size_t v = 0; v < vectors; v++)
                    sums[m][v] = _mm512_fmadd_ps(row, columns[v], sums[m][v]);
            }
        }
    }
    const __m512 min = _mm512_set1_ps(tile->min), max = _mm512_set1_ps(tile->max);
    PK_UNROLL for (size_t m = 0; m < rows; m++) {
        float *output = first + m * tile->output_stride;
        PK_UNROLL for (size_t v = 0; v < vectors; v++)
            sums[m][v] = _mm512_min_ps(max, _mm512_max_ps(min, sums[m][v]));
        PK_UNROLL for (size_t v = 0; v + 1 < vectors; v++)
            _mm512_storeu_ps(output + v * WIDTH, sums[m][v]);
        if (tail == WIDTH)
            _mm512_storeu_ps(output + (vectors - 1) * WIDTH, sums[m][vectors - 1]);
        else
            _mm512_mask_storeu_ps(output + (vectors - 1) * WIDTH, mask, sums[m][vectors - 1]);
    }
}

#include "f32_igemm_tile.h"

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1x1, tile_1x2}, {tile_2x1, tile_2x2},   {tile_3x1, tile_3x2},   {tile_4x1, tile_4x2},
    {tile_5x1, tile_5x2}, {tile_6x1, tile_6x2},   {tile_7x1, tile_7x2},   {tile_8x1, tile_8x2},
    {tile_9x1, tile_9x2}, {tile_10x1, tile_10x2}, {tile_11x1, tile_11x2}, {tile_12x1, tile_12x2},
};

static void transpose(float *to, size_t stride, const float *from, size_t step, int past)
{
    if (past)
        pk_transpose_16(to, stride, from, step, 1);
    else
        pk_transpose_16(to, stride, from, step, 0);
}

const struct pk_f32_igemm_kernel pk_f32_igemm_avx512 = {
    "avx512 12x32", PK_ISA_AVX512, ROWS, WIDTH, 2, tiles, 16, transpose, 0,
};
