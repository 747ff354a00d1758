/* Between fp32 and int8, for vectors of PK_LANES floats by the compiler's vector types. The file that
 * includes this defines PK_LANES, which divides PK_F32_QC8_LANES, and PK_ROWS, the rows of a product
 * whose sums stay in registers together. */
#ifndef PENSTOCK_F32_INT8_VECTORS_H
#define PENSTOCK_F32_INT8_VECTORS_H

#include "f32_int8.h"
#include "f32_vectors.h"

#include <string.h>

#define PK_PANEL (PK_F32_QC8_LANES / PK_LANES)

PK_INLINE float clamped(float x, float min, float max)
{
    x = x < min ? min : x;
    return x > max ? max : x;
}

/* As XNNPACK does: what is no number becomes the greatest. */
PK_INLINE small quantized(vec x, float inverse_scale, int32_t zero_point)
{
    const vec magic = all(12582912.0f); /* 1.5 * 2^23 leaves no room for a fraction */
    const vec low = all((float)(-128 - zero_point));
    const vec high = all((float)(127 - zero_point));
    x = x * inverse_scale;
    x = chosen(x < high, x, high);
    x = chosen(x > low, x, low);
    return __builtin_convertvector((ints)(x + magic) - (ints)magic + zero_point, small);
}

/* The elements of chunks from `begin` to `end`. */
static void quantize(const struct pk_f32_quantize_task *task, size_t begin, size_t end)
{
    /* Out of the task, which the compiler must read again after each store. */
    const float inverse_scale = task->inverse_scale, *input = task->input;
    const int32_t zero_point = task->zero_point;
    int8_t *output = task->output;
    const size_t last = pk_min(end * PK_F32_INT8_CHUNK, task->count);
    size_t i = begin * PK_F32_INT8_CHUNK;
    for (; i + PK_LANES <= last; i += PK_LANES)
        *(small *)(output + i) = quantized(at(input + i), inverse_scale, zero_point);
    if (i < last) {
        float tail[PK_LANES] = {0};
        memcpy(tail, input + i, (last - i) * sizeof(float));
        const small found = quantized(at(tail), inverse_scale, zero_point);
        memcpy(output + i, &found, last - i);
    }
}

static void dequantize(const struct pk_f32_dequantize_task *task, size_t begin, size_t end)
{
    const float zero_point = (float)task->zero_point, scale = task->scale;
    const int8_t *input = task->input;
    float *output = task->output;
    const size_t last = pk_min(end * PK_F32_INT8_CHUNK, task->count);
    size_t i = begin * PK_F32_INT8_CHUNK;
    for (; i + PK_LANES <= last; i += PK_LANES)
        *(vec *)(output + i) = (widened(input + i) - zero_point) * scale;
    for (; i < last; i++)
        output[i] = ((float)input[i] - zero_point) * scale;
}

static void scale(const struct pk_f32_scale_task *task, size_t begin, size_t end)
{
    const size_t size = task->size, whole = size / PK_LANES * PK_LANES;
    for (size_t r = begin; r < end; r++) {
        const float *x = task->input + r * size;
        vec most = all(0);
        float found = 0;
        for (size_t c = 0; c < whole; c += PK_LANES) {
            const vec v = (vec)((ints)at(x + c) & 0x7fffffff);
            most = chosen(v > most, v, most);
        }
        for (size_t i = 0; i < PK_LANES; i++)
            found = most[i] > found ? most[i] : found;
        for (size_t c = whole; c < size; c++)
            found = __builtin_fabsf(x[c]) > found ? __builtin_fabsf(x[c]) : found;
        task->output[r] = clamped(found, task->min, task->max) * task->factor;
    }
}

/* Rounded to the nearest of -128 to 127. */
PK_INLINE small narrowed(vec x)
{
    const vec magic = all(12582912.0f); /* 1.5 * 2^23 leaves no room for a fraction */
    x = chosen(x > all(-128), x, all(-128));
    x = chosen(x < all(127), x, all(127));
    return __builtin_convertvector((ints)(x + magic) - (ints)magic, small);
}

static void narrow(const struct pk_f32_narrow_task *task, size_t begin, size_t end)
{
    const size_t size = task->size, whole = size / PK_LANES * PK_LANES;
    for (size_t r = begin; r < end; r++) {
        const float *x = task->input + r * size;
        int8_t *to = task->output + r * size;
        const vec s = all(task->scales[r]);
        for (size_t c = 0; c < whole; c += PK_LANES)
            *(small *)(to + c) = narrowed(at(x + c) / s);
        if (whole < size) {
            float tail[PK_LANES] = {0};
            memcpy(tail, x + whole, (size - whole) * sizeof(float));
            const small found = narrowed(at(tail) / s);
            memcpy(to + whole, &found, size - whole);
        }
    }
}

static void widen(const struct pk_f32_widen_task *task, size_t begin, size_t end)
{
    const size_t size = task->size, whole = size / PK_LANES * PK_LANES;
    for (size_t r = begin; r < end; r++) {
        const int8_t *x = task->input + r * size;
        float *to = task->output + r * size;
        for (size_t c = 0; c < whole; c += PK_LANES)
            *(vec *)(to + c) = widened(x + c) * task->scales[r];
        for (size_t c = whole; c < size; c++)
            to[c] = (float)x[c] * task->scales[r];
    }
}

static void sums(const struct pk_f32_block_sums_task *task, size_t begin, size_t end)
{
    const size_t size = task->size, whole = size / PK_LANES * PK_LANES;
    for (size_t b = begin; b < end; b++) {
        const float *x = task->input + b * size;
        vec added = all(0);
        float sum = 0;
        for (size_t c = 0; c < whole; c += PK_LANES)
            added += at(x + c);
        for (size_t i = 0; i < PK_LANES; i++)
            sum += added[i];
        for (size_t c = whole; c < size; c++)
            sum += x[c];
        task->output[b] = sum * task->factor;
    }
}

/* Some rows by one panel. */
PK_INLINE void tile(const struct pk_f32_qc8_product *p, const float *input, const char *packed,
                    float *output, size_t channels, const size_t rows)
{
    const float *const scales = (const float *)packed;
    const int8_t *panel = (const int8_t *)(scales + PK_F32_QC8_LANES);
    vec found[PK_ROWS][PK_PANEL];
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < PK_PANEL; v++)
            found[r][v] = all(0);
    for (size_t i = 0; i < p->inputs; i++, panel += PK_F32_QC8_LANES)
        for (size_t v = 0; v < PK_PANEL; v++) {
            const vec w = widened(panel + v * PK_LANES);
            for (size_t r = 0; r < rows; r++)
                found[r][v] += input[r * p->inputs + i] * w;
        }
    for (size_t r = 0; r < rows; r++) {
        float whole[PK_F32_QC8_LANES];
        for (size_t v = 0; v < PK_PANEL; v++) {
            vec y = found[r][v] * at(scales + v * PK_LANES);
            y = chosen(y < all(p->min), all(p->min), y);
            *(vec *)(whole + v * PK_LANES) = chosen(y > all(p->max), all(p->max), y);
        }
        memcpy(output + r * p->outputs, whole, channels * sizeof(float));
    }
}

static void product(const struct pk_f32_qc8_task *task, size_t begin, size_t end)
{
    const struct pk_f32_qc8_product *p = &task->product;
    const size_t size = pk_f32_qc8_panel(p->inputs);
    for (size_t n = begin; n < end; n++) {
        const char *packed = (const char *)task->packed + n * size;
        const size_t first = n * PK_F32_QC8_LANES;
        const size_t channels = pk_min(PK_F32_QC8_LANES, p->outputs - first);
        size_t r = 0;
        for (; r + PK_ROWS <= p->rows; r += PK_ROWS)
            tile(p, task->input + r * p->inputs, packed, task->output + r * p->outputs + first,
                 channels, PK_ROWS);
        for (; r < p->rows; r++)
            tile(p, task->input + r * p->inputs, packed, task->output + r * p->outputs + first,
                 channels, 1);
    }
}
#endif
