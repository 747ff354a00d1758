/* Steps of recurrent layers for vectors of PK_LANES floats, by the compiler's vector types. The file that
 * includes this defines PK_LANES and `fused(a, b, c)`, which is a * b + c, and may have a `sigmoid_of(x)`
 * (PK_OWN_SIGMOID). All is in the order of operations of XNNPACK's kernels for the nodes: with its
 * sigmoid the bits are XNNPACK's too. */
#include "f32_cell.h"
#include "f32_vectors.h"
#include "unroll.h"

#include <string.h>

#define ROWS PK_F32_CELL_ROWS
#define PANEL PK_F32_CELL_CHANNELS
#define SUMS 8 /* vectors, as each has to wait for the one before it */

#ifndef PK_OWN_SIGMOID
#include "f32_exp.h"

PK_INLINE vec sigmoid_of(vec x)
{
    return quotient(chosen(x == x, all(1), x), all(1) + exponential(-x));
}
#endif

/* XNNPACK's x P(x^2) / Q(x^2); from 7.98 on it is 1 in fp32. */
PK_INLINE vec tanh_of(vec x)
{
    const vec most = all(7.9807181358e+00f);
    vec a = chosen(x > most, most, x);
    a = chosen(a < -most, -most, a);
    const vec square = a * a;
    vec p = fused(square, all(1.4248920266e-08f), all(2.1235626264e-05f));
    p = fused(square, p, all(3.5330520477e-03f));
    p = fused(square, p, all(1.3412411511e-01f));
    p = fused(square, p, all(1.0f));
    vec q = fused(square, all(8.1365948290e-07f), all(3.3472978976e-04f));
    q = fused(square, q, all(2.6018999517e-02f));
    q = fused(square, q, all(4.6745735407e-01f));
    q = fused(square, q, all(1.0f));
    return a * p / q;
}

/* gates = bias + h @ weights for `rows` rows by `vectors` vectors of gates from `first` on, all constants
 * but that; `to` has the bias. */
PK_INLINE void multiply_block(const size_t rows, const size_t vectors, const float *h, size_t hidden,
                              const float *weights, size_t first, size_t gates, float *to)
{
    const float *panels[SUMS];
    vec sums[ROWS][SUMS];
    PK_UNROLL for (size_t v = 0; v < vectors; v++)
    {
        const size_t channel = first + v * PK_LANES;
        panels[v] = weights + channel / PANEL * PANEL * hidden + channel % PANEL;
        PK_UNROLL for (size_t r = 0; r < rows; r++) sums[r][v] = at(to + r * gates + channel);
    }
    for (size_t k = 0; k < hidden; k++) {
        vec w[SUMS];
        PK_UNROLL for (size_t v = 0; v < vectors; v++) w[v] = at(panels[v] + k * PANEL);
        PK_UNROLL for (size_t r = 0; r < rows; r++) {
            const vec x = all(h[r * hidden + k]);
            PK_UNROLL for (size_t v = 0; v < vectors; v++) sums[r][v] = fused(x, w[v], sums[r][v]);
        }
    }
    PK_UNROLL for (size_t r = 0; r < rows; r++)
        PK_UNROLL for (size_t v = 0; v < vectors; v++)
            *(vec *)(to + r * gates + first + v * PK_LANES) = sums[r][v];
}

PK_INLINE void multiply_rows(const size_t rows, const float *h, size_t hidden, const float *weights,
                             size_t gates, float *to)
{
    for (size_t c = 0; c < gates; c += 2 * PK_LANES)
        multiply_block(rows, 2, h, hidden, weights, c, gates, to);
}

static void multiply(size_t rows, const float *h, size_t hidden, const float *weights, size_t gates,
                     float *to)
{
    size_t c = 0;
    switch (rows) {
    case 4:
        multiply_rows(4, h, hidden, weights, gates, to);
        break;
    case 3:
        multiply_rows(3, h, hidden, weights, gates, to);
        break;
    case 2:
        multiply_rows(2, h, hidden, weights, gates, to);
        break;
    default:
        for (; c + SUMS * PK_LANES <= gates; c += SUMS * PK_LANES)
            multiply_block(1, SUMS, h, hidden, weights, c, gates, to);
        for (; c < gates; c += 2 * PK_LANES)
            multiply_block(1, 2, h, hidden, weights, c, gates, to);
    }
}

static void lstm(const struct pk_f32_cell_task *t, const float *given, const float *product, size_t row)
{
    const size_t n = t->hidden, place = row * n;
    for (size_t i = 0; i < n; i += PK_LANES) {
        const size_t count = pk_min(n - i, PK_LANES);
        vec gates[4];
        PK_UNROLL for (size_t g = 0; g < 4; g++)
            gates[g] = some(given + g * n + i, count) + some(product + g * n + i, count);
        const vec in = sigmoid_of(gates[0]), forget = sigmoid_of(gates[1]);
        const vec kept = forget * some(t->c + place + i, count);
        const vec cell = kept + in * tanh_of(gates[3]);
        put_some(t->cell + place + i, cell, count);
        put_some(t->output + place + i, sigmoid_of(gates[2]) * tanh_of(cell), count);
    }
}

static void gru(const struct pk_f32_cell_task *t, const float *given, const float *product, size_t row)
{
    const size_t n = t->hidden, place = row * n;
    for (size_t i = 0; i < n; i += PK_LANES) {
        const size_t count = pk_min(n - i, PK_LANES);
        vec gates[2];
        PK_UNROLL for (size_t g = 0; g < 2; g++)
            gates[g] = some(given + g * n + i, count) + some(product + g * n + i, count);
        const vec remembered = sigmoid_of(gates[0]) * some(product + 2 * n + i, count);
        const vec made = tanh_of(some(given + 2 * n + i, count) + remembered);
        const vec h = some(t->h + place + i, count);
        put_some(t->output + place + i, made + sigmoid_of(gates[1]) * (h - made), count);
    }
}

PK_INLINE void finish(const struct pk_f32_cell_task *t, const float *product, size_t row)
{
    const float *const given = t->input + t->input_offset + row * t->input_stride;
    if (t->form == PK_F32_LSTM)
        lstm(t, given, product, row);
    else
        gru(t, given, product, row);
}

static void cell(const struct pk_f32_cell_task *t)
{
    const size_t n = t->hidden, gates = pk_f32_cell_gates(t);
    float *const scratch = t->scratch;
    if (t->product) {
        for (size_t r = 0; r < t->rows; r++)
            finish(t, t->product + r * n * (t->form == PK_F32_LSTM ? 4 : 3), r);
        return;
    }
    for (size_t first = 0; first < t->rows; first += ROWS) {
        const size_t rows = pk_min(t->rows - first, ROWS);
        memset(scratch, 0, rows * gates * sizeof(float));
        for (size_t r = 0; t->bias && r < rows; r++)
            memcpy(scratch + r * gates + 2 * n, t->bias, n * sizeof(float));
        multiply(rows, t->h + first * n, n, t->weights, gates, scratch);
        for (size_t r = 0; r < rows; r++) finish(t, scratch + r * gates, first + r);
    }
}
