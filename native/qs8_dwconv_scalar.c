/* int8 depthwise convolution in plain C: what the other kernels are compared with. */
#include "qs8_dwconv.h"

static int32_t rounded(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 leaves no room for a fraction */
    volatile float sum = x + magic;
    return (int32_t)(sum - magic);
}

static size_t channel(size_t width, size_t at)
{
    (void)width;
    return at;
}

static void run(const struct pk_qs8_dwblock *b, size_t outputs, size_t stride, int shared)
{
    (void)stride;
    (void)shared;
    const int32_t *bias = b->packed;
    const float *scale = (const float *)(bias + 1);
    const int8_t *weights = (const int8_t *)(scale + 1);
    const float max = (float)(b->max - b->zero_point), min = (float)(b->min - b->zero_point);
    for (size_t o = 0; o < outputs; o++) {
        uint32_t sum = (uint32_t)bias[0];
        for (size_t g = 0; g < b->groups; g++)
            for (size_t x = 0; x < b->kernel_width; x++) {
                const size_t column = o * b->output_step + x * b->tap_step;
                const int8_t value = b->rows[column * b->groups + g][b->offset];
                sum += (uint32_t)(value * weights[g * b->kernel_width + x]);
            }
        float x = (float)(int32_t)sum * scale[0];
        x = x < max ? x : max;
        x = x > min ? x : min;
        b->output[o * b->output_stride] = (int8_t)(rounded(x) + b->zero_point);
    }
}

const struct pk_qs8_dwkernels pk_qs8_dw_scalar = {
    .name = "scalar", .depth = 1, .flip = 0, .weight = 1, .outputs = PK_QS8_DW_OUTPUTS, .widths = {1, 1, 1},
    .runs = {run, run, run}, .channel = channel,
};
