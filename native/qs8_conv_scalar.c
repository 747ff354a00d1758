/* int8 convolution in plain C: what the other kernels are compared with. */
#include "qd8_rows.h"

#define LANES 4

static void prepare(void *to, const int8_t *from, size_t count)
{
    int16_t *const values = to;
    for (size_t i = 0; i < count; i++)
        values[i] = from[i];
}

static void sums_of(const struct pk_qs8_tile *t, size_t pixel, const int8_t *weights,
                    uint32_t sums[LANES])
{
    for (size_t s = 0; s < t->segment_count; s++) {
        const int16_t *a = (const int16_t *)((const char *)t->rows[pixel] + t->segments[s]);
        for (size_t i = 0; i < t->segment_depth; i++, weights += LANES)
            for (size_t c = 0; c < LANES; c++)
                sums[c] += (uint32_t)(a[i] * weights[c]);
    }
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    const int32_t *start = t->panel; /* bias, or the sum of the weights */
    const float *scale = (const float *)(start + LANES), *bias = scale + LANES;
    const float max = (float)(t->max - t->zero_point), min = (float)(t->min - t->zero_point);
    const int dynamic = form == PK_QS8_DYNAMIC;
    const int8_t *weights = (const int8_t *)t->panel + LANES * (dynamic ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t p = 0; p < pixels; p++) {
        uint32_t sums[LANES];
        for (size_t c = 0; c < LANES; c++)
            sums[c] = dynamic ? -(uint32_t)start[c] * (uint32_t)t->dynamic[p].zero_point
                              : (uint32_t)start[c];
        sums_of(t, p, weights, sums);
        for (size_t c = 0; c < t->channels; c++) {
            const float sum = (float)(int32_t)sums[c];
            if (dynamic) {
                /* A float product is exact in double: but for the sum's, one rounding. */
                float x = (float)((double)(sum * t->dynamic[p].scale) * scale[c] + bias[c]);
                x = x > t->float_min ? x : t->float_min;
                x = x < t->float_max ? x : t->float_max;
                ((float *)t->output)[p * t->output_stride + c] = x;
            } else {
                float x = sum * scale[c];
                x = x < max ? x : max;
                x = x > min ? x : min;
                ((int8_t *)t->output)[p * t->output_stride + c] =
                    (int8_t)(pk_qd8_rounded(x) + t->zero_point);
            }
        }
    }
}

static void quantize(void *to, struct pk_qd8_row *row, const float *from, size_t count)
{
    float min = from[0], max = from[0];
    for (size_t i = 1; i < count; i++) {
        min = from[i] < min ? from[i] : min;
        max = from[i] > max ? from[i] : max;
    }
    const float scale = pk_qd8_row_of(min, max, row);
    for (size_t i = 0; i < count; i++) {
        float x = from[i] * scale;
        x = x < (float)(127 - row->zero_point) ? x : (float)(127 - row->zero_point);
        x = x > (float)(-128 - row->zero_point) ? x : (float)(-128 - row->zero_point);
        ((int16_t *)to)[i] = (int16_t)(pk_qd8_rounded(x) + row->zero_point);
    }
}

const struct pk_qs8_kernels pk_qs8_scalar = {
    .name = "scalar", .lanes = LANES, .depth = 1, .flip = 0, .element = 2, .panels = 1, .rows = 1,
    .prepare = prepare, .tiles = tiles, .quantize = quantize,
};
