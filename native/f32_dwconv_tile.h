/* The kernels of a depthwise convolution for one instruction set. Whoever includes this has defined
 * the vector type V of WIDTH floats, LOAD, LOAD_SOME, STORE, STORE_SOME, SET, FMA, MIN, MAX. */
#include "f32_dwconv.h"
#include "unroll.h"

/* Pixels of a run whose sums stay in registers together. */
#define RUN 8

/* `count` channels from `c` on: WIDTH, or fewer where `some`. */
#define READ(address) (some ? LOAD_SOME(address, count) : LOAD(address))
#define WRITE(address, value)                                                                      \
    do {                                                                                           \
        if (some)                                                                                  \
            STORE_SOME(address, value, count);                                                     \
        else                                                                                       \
            STORE(address, value);                                                                 \
    } while (0)

PK_INLINE void tile_channels(const struct pk_f32_dwconv_tile *tile, const float *weights,
                             const size_t c, const size_t count, const int some,
                             const size_t pixels, const size_t kernel_width, const size_t stride)
{
    const V min = SET(tile->min), max = SET(tile->max);
    const size_t columns = (pixels - 1) * stride + kernel_width;
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
            const V input = READ(inputs[i] + c);
            PK_UNROLL for (size_t x = 0; x < kernel_width; x++) {
                if (i >= x && (i - x) % stride == 0 && (i - x) / stride < pixels)
                    sums[(i - x) / stride] = FMA(input, taps[x], sums[(i - x) / stride]);
            }
        }
    }
    PK_UNROLL for (size_t p = 0; p < pixels; p++)
        WRITE(tile->output + p * tile->output_pixel + c, MIN(max, MAX(min, sums[p])));
}

PK_INLINE void row_tile(const struct pk_f32_dwconv_tile *tile, const size_t pixels,
                        const size_t kernel_width, const size_t stride)
{
    const float *weights = tile->weights;
    const size_t step = (1 + tile->all_rows * kernel_width) * WIDTH;
    const size_t tail = tile->channels % WIDTH, whole = tile->channels - tail;
    for (size_t c = 0; c < whole; c += WIDTH, weights += step)
        tile_channels(tile, weights, c, WIDTH, 0, pixels, kernel_width, stride);
    if (tail)
        tile_channels(tile, weights, whole, tail, 1, pixels, kernel_width, stride);
}

PK_INLINE void run_channels(const struct pk_f32_dwconv_run *run, const float *weights,
                            const size_t pixel, const size_t c, const size_t count, const int some,
                            const size_t pixels)
{
    const V min = SET(run->min), max = SET(run->max);
    const float *const first = run->input + pixel * run->input_pixel + c;
    const float *taps = weights + (1 + run->first_row * run->kernel_width + run->first_column) * WIDTH;
    V sums[RUN];
    const V bias = LOAD(weights);
    PK_UNROLL for (size_t p = 0; p < pixels; p++) sums[p] = bias;
    for (size_t y = 0; y < run->rows; y++, taps += run->kernel_width * WIDTH) {
        const float *input = first + y * run->input_row;
        for (size_t x = 0; x < run->columns; x++, input += run->input_column) {
            const V tap = LOAD(taps + x * WIDTH);
            PK_UNROLL for (size_t p = 0; p < pixels; p++)
                sums[p] = FMA(READ(input + p * run->input_pixel), tap, sums[p]);
        }
    }
    float *const output = run->output + pixel * run->output_pixel + c;
    PK_UNROLL for (size_t p = 0; p < pixels; p++)
        WRITE(output + p * run->output_pixel, MIN(max, MAX(min, sums[p])));
}

PK_INLINE void run_pixels(const struct pk_f32_dwconv_run *run, const size_t pixel,
                          const size_t pixels)
{
    const float *weights = run->weights;
    const size_t step = (1 + run->kernel_height * run->kernel_width) * WIDTH;
    const size_t tail = run->channels % WIDTH, whole = run->channels - tail;
    for (size_t c = 0; c < whole; c += WIDTH, weights += step)
        run_channels(run, weights, pixel, c, WIDTH, 0, pixels);
    if (tail)
        run_channels(run, weights, pixel, whole, tail, 1, pixels);
}

static void any_run(const struct pk_f32_dwconv_run *run)
{
    size_t pixel = 0;
    for (; pixel + RUN <= run->pixels; pixel += RUN)
        run_pixels(run, pixel, RUN);
    if (run->pixels & 4) {
        run_pixels(run, pixel, 4);
        pixel += 4;
    }
    if (run->pixels & 2) {
        run_pixels(run, pixel, 2);
        pixel += 2;
    }
    if (run->pixels & 1)
        run_pixels(run, pixel, 1);
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
