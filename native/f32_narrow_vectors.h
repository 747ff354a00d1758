/* Products in fp32 with few output channels, whose own vectors would be nearly empty: vectors of input
 * channels are multiplied, and added up at the end. A file that includes this has defined PK_LANES,
 * ROWS and OUTPUTS, the most rows and outputs of a tile, and `fused(a, b, c)`, a * b + c,
 * `part(p, count)`, a vector of `count` floats and zeros, and `total(v)`, the sum of a vector. */
#include "f32_igemm.h"
#include "f32_vectors.h"
#include "unroll.h"

static vec fused(vec a, vec b, vec c);
static vec part(const float *p, size_t count);
static float total(vec v);

PK_INLINE void tile_of(const struct pk_f32_tile *tile, const size_t rows, const size_t outputs)
{
    const float *const *inputs = tile->inputs;
    const size_t channels = tile->channels, whole = channels - channels % PK_LANES;
    vec sums[ROWS][OUTPUTS];
    PK_UNROLL for (size_t m = 0; m < rows; m++)
        PK_UNROLL for (size_t n = 0; n < outputs; n++) sums[m][n] = (vec){0};
    for (size_t t = 0; t < tile->taps; t++, inputs += PK_F32_IGEMM_ROWS) {
        const float *weights = tile->weights[t];
        const float *input[ROWS];
        PK_UNROLL for (size_t m = 0; m < rows; m++) input[m] = inputs[m] + tile->offset;
        for (size_t k = 0; k < whole; k += PK_LANES) {
            vec w[OUTPUTS];
            PK_UNROLL for (size_t n = 0; n < outputs; n++)
                w[n] = at(weights + n * tile->panel_stride + k);
            PK_UNROLL for (size_t m = 0; m < rows; m++) {
                const vec x = at(input[m] + k);
                PK_UNROLL for (size_t n = 0; n < outputs; n++) sums[m][n] = fused(x, w[n], sums[m][n]);
            }
        }
        if (whole == channels)
            continue;
        PK_UNROLL for (size_t n = 0; n < outputs; n++) {
            const vec w = part(weights + n * tile->panel_stride + whole, channels - whole);
            PK_UNROLL for (size_t m = 0; m < rows; m++)
                sums[m][n] = fused(part(input[m] + whole, channels - whole), w, sums[m][n]);
        }
    }
    PK_UNROLL for (size_t n = 0; n < outputs; n++) {
        PK_UNROLL for (size_t m = 0; m < rows; m++) {
            float *output = tile->output + m * tile->output_stride + n;
            float y = total(sums[m][n]) + (tile->bias ? tile->bias[n] : *output);
            y = y < tile->min ? tile->min : y;
            *output = y > tile->max ? tile->max : y;
        }
    }
}

#define TILE(rows)                                                                                 \
    static void tile_##rows(const struct pk_f32_tile *tile)                                        \
    {                                                                                              \
        if (tile->columns == 1)                                                                    \
            tile_of(tile, rows, 1);                                                                \
        else if (tile->columns == 2)                                                               \
            tile_of(tile, rows, 2);                                                                \
        else if (tile->columns == 3 || OUTPUTS == 3)                                               \
            tile_of(tile, rows, 3);                                                                \
        else                                                                                       \
            tile_of(tile, rows, OUTPUTS);                                                          \
    }
