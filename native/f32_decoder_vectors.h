/* The norms and gates of decoders for vectors of PK_LANES floats, by the compiler's vector types. The
 * file that includes this defines PK_LANES. */
#ifndef PENSTOCK_F32_DECODER_VECTORS_H
#define PENSTOCK_F32_DECODER_VECTORS_H

#include "f32_decoder.h"
#include "f32_exp.h"

#include <string.h>

#if defined(__clang__)
#pragma clang fp contract(fast)
#endif

PK_INLINE float sum_of(vec x)
{
    float sum = 0;
    for (size_t i = 0; i < PK_LANES; i++)
        sum += x[i];
    return sum;
}

/* The sum over a row of x - less, or of its square. */
PK_INLINE float sum_over(const float *x, size_t channels, const float less, const int squared)
{
    const size_t whole = channels / PK_LANES * PK_LANES;
    vec sums[4] = {{0}};
    size_t c = 0;
    for (; c + 4 * PK_LANES <= channels; c += 4 * PK_LANES)
        for (size_t i = 0; i < 4; i++) {
            const vec d = at(x + c + i * PK_LANES) - less;
            if (squared)
                sums[i] += d * d;
            else
                sums[i] += d;
        }
    for (; c < whole; c += PK_LANES) {
        const vec d = at(x + c) - less;
        if (squared)
            sums[0] += d * d;
        else
            sums[0] += d;
    }
    float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; c < channels; c++)
        sum += squared ? (x[c] - less) * (x[c] - less) : x[c] - less;
    return sum;
}

PK_INLINE void norm_rows(const struct pk_f32_norm_task *task, size_t begin, size_t end,
                         const int layer)
{
    const size_t channels = task->channels, whole = channels / PK_LANES * PK_LANES;
    const float share = 1.0f / (float)channels;
    for (size_t r = begin; r < end; r++) {
        const float *x = task->input + r * channels;
        float *to = task->output + r * channels;
        const float mean = layer ? sum_over(x, channels, 0, 0) * share : 0;
        const float power = sum_over(x, channels, mean, 1) * share;
        const float scale = 1.0f / __builtin_sqrtf(power + task->epsilon);
        size_t c = 0;
        for (; c < whole; c += PK_LANES) {
            vec y = (at(x + c) - mean) * (scale * at(task->weight + c));
            if (layer)
                y += at(task->bias + c);
            *(vec *)(to + c) = y;
        }
        for (; c < channels; c++) {
            const float y = (x[c] - mean) * (scale * task->weight[c]);
            to[c] = layer ? y + task->bias[c] : y;
        }
    }
}

static void norm(const struct pk_f32_norm_task *task, size_t begin, size_t end)
{
    if (task->bias)
        norm_rows(task, begin, end, 1);
    else
        norm_rows(task, begin, end, 0);
}

PK_INLINE vec gated(const struct pk_f32_gate_task *task, vec a, const uint32_t form)
{
    if (form == PK_F32_SIGMOID)
        return quotient(chosen(a == a, all(1), a), all(1) + exponential(-a));
    if (form == PK_F32_HARD_SWISH) {
        const vec above = a + 3.0f, low = chosen(above < all(0), all(0), above);
        return a * (1.0f / 6.0f) * chosen(low > all(6), all(6), low);
    }
    vec x = a;
    if (task->cubic != 0)
        x = a * (a * a * task->cubic + task->linear);
    return quotient(at_least(a, all(-88)), all(1) + exponential(-x)); /* -inf becomes nearly 0 */
}

PK_INLINE void gate_elements(const struct pk_f32_gate_task *task, size_t begin, size_t end,
                             const int plain, const uint32_t form)
{
    size_t i = begin;
    for (; i + PK_LANES <= end; i += PK_LANES) {
        vec found = gated(task, at(task->a + i), form);
        if (!plain)
            found = found * at(task->b + i);
        *(vec *)(task->output + i) = found;
    }
    if (i < end) {
        float a[PK_LANES] = {0}, b[PK_LANES] = {0};
        memcpy(a, task->a + i, (end - i) * sizeof(float));
        if (!plain)
            memcpy(b, task->b + i, (end - i) * sizeof(float));
        vec found = gated(task, at(a), form);
        if (!plain)
            found = found * at(b);
        *(vec *)a = found;
        memcpy(task->output + i, a, (end - i) * sizeof(float));
    }
}

static void gate(const struct pk_f32_gate_task *task, size_t begin, size_t end)
{
    if (task->form == PK_F32_SIGMOID)
        gate_elements(task, begin, end, 1, PK_F32_SIGMOID);
    else if (task->form == PK_F32_HARD_SWISH)
        gate_elements(task, begin, end, 1, PK_F32_HARD_SWISH);
    else if (task->b)
        gate_elements(task, begin, end, 0, PK_F32_GATE);
    else
        gate_elements(task, begin, end, 1, PK_F32_GATE);
}
#endif
