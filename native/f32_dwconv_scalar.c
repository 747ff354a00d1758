/* Depthwise convolution in fp32 in plain C: what other processors run, and what tests compare with. */
#include "f32_dwconv.h"

#define WIDTH 8

static void any_pixel(const struct pk_f32_dwconv_pixel *pixel)
{
    const size_t skipped = pixel->first_row * pixel->kernel_width + pixel->first_column;
    const size_t step = (1 + pixel->kernel_height * pixel->kernel_width) * WIDTH;
    const float *weights = pixel->weights;
    for (size_t c = 0; c < pixel->channels; c += WIDTH, weights += step) {
        const size_t count = pk_min(pixel->channels - c, WIDTH);
        float sums[WIDTH];
        for (size_t i = 0; i < count; i++)
            sums[i] = weights[i];
        const float *row = weights + (1 + skipped) * WIDTH;
        for (size_t y = 0; y < pixel->rows; y++, row += pixel->kernel_width * WIDTH) {
            const float *input = pixel->input + y * pixel->input_row + c;
            for (size_t x = 0; x < pixel->columns; x++, input += pixel->input_column)
                for (size_t i = 0; i < count; i++)
                    sums[i] += input[i] * row[x * WIDTH + i];
        }
        for (size_t i = 0; i < count; i++) {
            const float low = sums[i] < pixel->min ? pixel->min : sums[i];
            pixel->output[c + i] = low > pixel->max ? pixel->max : low;
        }
    }
}

static const pk_f32_dwconv_tile_function *no_rows(size_t kernel_width, size_t stride)
{
    (void)kernel_width;
    (void)stride;
    return NULL;
}

const struct pk_f32_dwconv_kernel pk_f32_dwconv_scalar = {"scalar", WIDTH, no_rows, any_pixel};
