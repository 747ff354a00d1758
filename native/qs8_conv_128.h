/* What int8 convolution has in common in ARM's registers of 128 bits: panels of 8 channels, how sums
 * are brought to the output, and quantization at run time. A file that includes this has defined
 * PANELS. */
#include "neon.h"
#include "qd8_rows.h"
#include "unroll.h"

#include <string.h>

#define LANES 8
#define VECTORS 2 /* of sums, in a panel */

PK_INLINE const char *panel_at(const struct pk_qs8_tile *t, int panel)
{
    return (const char *)t->panel + panel * t->panel_size;
}

/* What the sums of four channels of a panel begin with. */
PK_INLINE int32x4_t start_of(const struct pk_qs8_tile *t, int panel, int vector,
                             const enum pk_qs8_form form)
{
    return form == PK_QS8_DYNAMIC ? vdupq_n_s32(0)
                                  : vld1q_s32((const int32_t *)panel_at(t, panel) + 4 * vector);
}

/* The sums of a row, by panel and vector. */
PK_INLINE void put_floats(const struct pk_qs8_tile *t, size_t pixel, const int panels,
                          const int32x4_t sums[PANELS * VECTORS])
{
    const float32x4_t min = vdupq_n_f32(t->float_min), max = vdupq_n_f32(t->float_max);
    const struct pk_qd8_row row = t->dynamic[pixel];
    float *const out = (float *)t->output + pixel * t->output_stride;
    PK_UNROLL
    for (int v = 0; v < panels * VECTORS; v++) {
        const char *const header = panel_at(t, v / VECTORS) + v % VECTORS * 16;
        const int32x4_t weights = vld1q_s32((const int32_t *)header);
        const float32x4_t scale = vld1q_f32((const float *)(header + LANES * 4));
        const float32x4_t bias = vld1q_f32((const float *)(header + LANES * 8));
        float32x4_t x = vcvtq_f32_s32(vmlsq_s32(sums[v], weights, vdupq_n_s32(row.zero_point)));
        x = vfmaq_f32(bias, vmulq_n_f32(x, row.scale), scale);
        x = vminq_f32(vmaxq_f32(x, min), max);
        if (t->channels > (size_t)v * 4)
            pk_store_floats(out + v * 4, x, t->channels - (size_t)v * 4);
    }
}

/* Four sums to the nearest integers, ties to even; what is out of range saturates. */
PK_INLINE int32x4_t quantized(const struct pk_qs8_tile *t, int panel, int vector, int32x4_t sums)
{
    const float *const scale = (const float *)(panel_at(t, panel) + LANES * 4) + 4 * vector;
    return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums), vld1q_f32(scale)));
}

PK_INLINE void put_bytes(const struct pk_qs8_tile *t, size_t pixel, const int panels,
                         const int32x4_t sums[PANELS * VECTORS])
{
    const int16x8_t zero_point = vdupq_n_s16((int16_t)t->zero_point);
    int8x8_t halves[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        int16x8_t words = vcombine_s16(vqmovn_s32(quantized(t, p, 0, sums[p * VECTORS])),
                                       vqmovn_s32(quantized(t, p, 1, sums[p * VECTORS + 1])));
        halves[p] = vqmovn_s16(vqaddq_s16(words, zero_point));
    }
    int8x16_t bytes = vcombine_s8(halves[0], halves[panels - 1]);
    bytes = vmaxq_s8(bytes, vdupq_n_s8((int8_t)t->min));
    bytes = vminq_s8(bytes, vdupq_n_s8((int8_t)t->max));
    pk_store_tail((int8_t *)t->output + pixel * t->output_stride, bytes,
                  pk_min(t->channels, (size_t)panels * LANES));
}

PK_INLINE void put(const struct pk_qs8_tile *t, size_t pixel, const int panels,
                   const enum pk_qs8_form form, const int32x4_t sums[PANELS * VECTORS])
{
    if (form == PK_QS8_DYNAMIC)
        put_floats(t, pixel, panels, sums);
    else
        put_bytes(t, pixel, panels, sums);
}

static void prepare(void *to, const int8_t *from, size_t count)
{
    memcpy(to, from, count);
}

static void quantize(void *to, struct pk_qd8_row *row, const float *from, size_t count)
{
    float32x4_t low = vdupq_n_f32(from[0]), high = low;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const float32x4_t x = vld1q_f32(from + i);
        low = vminnmq_f32(low, x);
        high = vmaxnmq_f32(high, x);
    }
    float least = vminnmvq_f32(low), most = vmaxnmvq_f32(high);
    for (; i < count; i++) {
        least = from[i] < least ? from[i] : least;
        most = from[i] > most ? from[i] : most;
    }
    const float factor = pk_qd8_row_of(least, most, row);
    const float32x4_t limit = vdupq_n_f32((float)(127 - row->zero_point));
    const int16x8_t zero_point = vdupq_n_s16((int16_t)row->zero_point);
    for (i = 0; i < count; i += 8) {
        const size_t left = count - i;
        const float32x4_t a = pk_load_floats(from + i, left);
        const float32x4_t b =
            left > 4 ? pk_load_floats(from + i + 4, left - 4) : vdupq_n_f32(0.0f);
        const int16x8_t words =
            vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vminnmq_f32(vmulq_n_f32(a, factor), limit))),
                         vqmovn_s32(vcvtnq_s32_f32(vminnmq_f32(vmulq_n_f32(b, factor), limit))));
        const int8x8_t bytes = vqmovn_s16(vqaddq_s16(words, zero_point));
        pk_store_tail((int8_t *)to + i, vcombine_s8(bytes, bytes), pk_min(left, 8));
    }
}
