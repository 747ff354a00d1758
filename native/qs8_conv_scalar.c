/* int8 convolution in plain C: what the other kernels are compared with. */
#include "qs8_conv.h"

#include <math.h>

#define LANES 4

static void prepare(void *to, const int8_t *from, size_t count)
{
    int16_t *const values = to;
    for (size_t i = 0; i < count; i++)
        values[i] = from[i];
}

/* To nearest, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction. */
static int32_t rounded(float x)
{
    const float magic = 12582912.0f;
    volatile float sum = x + magic;
    return (int32_t)(sum - magic);
}

static void tile(const struct pk_qs8_tile *t, size_t rows)
{
    const int32_t *bias = t->panel;
    const float *scale = (const float *)(bias + LANES);
    const float max = (float)(t->max - t->zero_point), min = (float)(t->min - t->zero_point);
    for (size_t r = 0; r < rows; r++) {
        const int8_t *weights = (const int8_t *)(scale + LANES);
        uint32_t sums[LANES];
        for (size_t c = 0; c < LANES; c++)
            sums[c] = (uint32_t)bias[c];
        for (size_t s = 0; s < t->segment_count; s++) {
            const int16_t *a = (const int16_t *)((const char *)t->rows[r] + t->segments[s]);
            for (size_t i = 0; i < t->segment_depth; i++, weights += LANES)
                for (size_t c = 0; c < LANES; c++)
                    sums[c] += (uint32_t)(a[i] * weights[c]);
        }
        for (size_t c = 0; c < t->channels; c++) {
            float x = (float)(int32_t)sums[c] * scale[c];
            x = x < max ? x : max;
            x = x > min ? x : min;
            t->output[r * t->output_stride + c] = (int8_t)(rounded(x) + t->zero_point);
        }
    }
}

const struct pk_qs8_kernels pk_qs8_scalar = {
    .name = "scalar", .lanes = LANES, .depth = 1, .flip = 0, .element = 2, .panels = 1, .rows = 4,
    .prepare = prepare, .tile = tile,
};
