/* Depthwise convolution in fp32 in plain C: what other processors run, and what tests compare with. */
#include "f32_dwconv.h"

#define WIDTH 8

static void any_run(const struct pk_f32_dwconv_run *run)
{
    const size_t skipped = run->first_row * run->kernel_width + run->first_column;
    const size_t step = (1 + run->kernel_height * run->kernel_width) * WIDTH;
    for (size_t p = 0; p < run->pixels; p++) {
        const float *weights = run->weights;
        float *const output = run->output + p * run->output_pixel;
        for (size_t c = 0; c < run->channels; c += WIDTH, weights += step) {
            const size_t count = pk_min(run->channels - c, WIDTH);
            float sums[WIDTH];
            for (size_t i = 0; i < count; i++)
                sums[i] = weights[i];
            const float *row = weights + (1 + skipped) * WIDTH;
            for (size_t y = 0; y < run->rows; y++, row += run->kernel_width * WIDTH) {
                const float *input = run->input + p * run->input_pixel + y * run->input_row + c;
                for (size_t x = 0; x < run->columns; x++, input += run->input_column)
                    for (size_t i = 0; i < count; i++)
                        sums[i] += input[i] * row[x * WIDTH + i];
            }
            for (size_t i = 0; i < count; i++) {
                const float low = sums[i] < run->min ? run->min : sums[i];
                output[c + i] = low > run->max ? run->max : low;
            }
        }
    }
}

static const pk_f32_dwconv_tile_function *no_rows(size_t kernel_width, size_t stride)
{
    (void)kernel_width;
    (void)stride;
    return NULL;
}

const struct pk_f32_dwconv_kernel pk_f32_dwconv_scalar = {"scalar", WIDTH, no_rows, any_run};
