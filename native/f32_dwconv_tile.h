/* The kernels of a depthwise convolution for one instruction set. Whoever includes this has defined
 * the vector type V of WIDTH floats, LOAD, LOAD_SOME, STORE, STORE_SOME, SET, FMA, MIN, MAX. */
#include "f32_dwconv.h"
#include "unroll.h"

PK_INLINE void row_tile(const struct pk_f32_dwconv_tile *tile, const size_t pixels,
                        const size_t kernel_width, const size_t stride)
{
    const V min = SET(tile->min), max = SET(tile->max);
    const float *weights = tile->weights;
    const size_t columns = (pixels - 1) * stride + kernel_width;
    for (size_t c = 0; c < tile->channels; c += WIDTH) {
        V sums[PK_F32_DWCONV_PIXELS];
        const V bias = LOAD(weights);
        PK_UNROLL for (size_t p = 0; p < pixels; p++) sums[p] = bias;
        const float *row = weights + (1 + tile->first * kernel_width) * WIDTH;
        for (size_t y = 0; y < tile->rows; y++) {
            const float *const *inputs = tile->inputs[y];
            V taps[PK_F32_DWCONV_SIZE];
            PK_UNROLL for (size_t x = 0; x < kernel_width; x++) taps[x] = LOAD(row + x * WIDTH);
            row += kernel_width * WIDTH;
            PK_UNROLL for (size_t i = 0; i < columns; i++) {
                const V input = LOAD(inputs[i] + c);
                PK_UNROLL for (size_t x = 0; x < kernel_width; x++) {
                    if (i >= x && (i - x) % stride == 0 && (i - x) / stride < pixels)
                        sums[(i - x) / stride] = FMA(input, taps[x], sums[(i - x) / stride]);
                }
            }
        }
        weights += (1 + tile->all_rows * kernel_width) * WIDTH;
        PK_UNROLL for (size_t p = 0; p < pixels; p++)
            STORE(tile->output + p * tile->output_pixel + c, MIN(max, MAX(min, sums[p])));
    }
}

static void any_pixel(const struct pk_f32_dwconv_pixel *pixel)
{
    const V min = SET(pixel->min), max = SET(pixel->max);
    const size_t skipped = pixel->first_row * pixel->kernel_width + pixel->first_column;
    const size_t step = (1 + pixel->kernel_height * pixel->kernel_width) * WIDTH;
    const float *weights = pixel->weights;
    for (size_t c = 0; c < pixel->channels; c += WIDTH, weights += step) {
        const size_t count = pk_min(pixel->channels - c, WIDTH);
        V sum = LOAD(weights);
        const float *row = weights + (1 + skipped) * WIDTH;
        for (size_t y = 0; y < pixel->rows; y++, row += pixel->kernel_width * WIDTH) {
            const float *input = pixel->input + y * pixel->input_row + c;
            for (size_t x = 0; x < pixel->columns; x++, input += pixel->input_column)
                sum = FMA(LOAD_SOME(input, count), LOAD(row + x * WIDTH), sum);
        }
        STORE_SOME(pixel->output + c, MIN(max, MAX(min, sum)), count);
    }
}

#define PIXELS(p, k, s)                                                                            \
    static void tile_##p##_##k##_##s(const struct pk_f32_dwconv_tile *tile)                        \
    {                                                                                              \
        row_tile(tile, p, k, s);                                                                   \
    }
#define ROW(k, s)                                                                                  \
    PIXELS(1, k, s)                                                                                \
    PIXELS(2, k, s)                                                                                \
    PIXELS(3, k, s)                                                                                \
    PIXELS(4, k, s)                                                                                \
    PIXELS(5, k, s)                                                                                \
    PIXELS(6, k, s)                                                                                \
    PIXELS(7, k, s)                                                                                \
    static const pk_f32_dwconv_tile_function row_##k##_##s[] = {                                   \
        tile_1_##k##_##s, tile_2_##k##_##s, tile_3_##k##_##s, tile_4_##k##_##s,                    \
        tile_5_##k##_##s, tile_6_##k##_##s, tile_7_##k##_##s,                                      \
    };

ROW(3, 1)
ROW(3, 2)
ROW(5, 1)
ROW(5, 2)
ROW(7, 1)

/* The kernels by number of pixels, NULL if there are none. */
static const pk_f32_dwconv_tile_function *row_kernels(size_t kernel_width, size_t stride)
{
    if (kernel_width == 3)
        return stride == 1 ? row_3_1 : stride == 2 ? row_3_2 : NULL;
    if (kernel_width == 5)
        return stride == 1 ? row_5_1 : stride == 2 ? row_5_2 : NULL;
    return kernel_width == 7 && stride == 1 ? row_7_1 : NULL;
}
