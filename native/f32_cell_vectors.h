/* Steps of recurrent layers for vectors of PK_LANES floats, by the compiler's vector types. */
#include "f32_cell.h"
#include "f32_exp.h"
#include "unroll.h"

#include <string.h>

#define ROWS PK_F32_CELL_ROWS
#define SUMS 8 /* vectors, as each has to wait for the one before it */

PK_INLINE vec sigmoid_of(vec x)
{
    return quotient(chosen(x == x, all(1), x), all(1) + exponential(-x));
}

/* x P(x^2) / Q(x^2), to 3 units in the last place; beyond 7.9 it is 1 in fp32. */
PK_INLINE vec tanh_of(vec x)
{
    const vec most = all(7.90531110763549805f);
    vec a = chosen(x > most, most, x);
    a = chosen(a < -most, -most, a);
    const vec square = a * a;
    vec p = all(-2.76076847742355e-16f);
    p = p * square + 2.00018790482477e-13f;
    p = p * square + -8.60467152213735e-11f;
    p = p * square + 5.12229709037114e-08f;
    p = p * square + 1.48572235717979e-05f;
    p = p * square + 6.37261928875436e-04f;
    p = p * square + 4.89352455891786e-03f;
    vec q = all(1.19825839466702e-06f);
    q = q * square + 1.18534705686654e-04f;
    q = q * square + 2.26843463243900e-03f;
    q = q * square + 4.89352518554385e-03f;
    return a * p / q;
}

/* gates += h @ weights for `rows` rows by `vectors` vectors of gates, both constants. */
PK_INLINE void multiply_block(const size_t rows, const size_t vectors, const float *h, size_t hidden,
                              const float *weights, size_t gates, float *to)
{
    vec sums[ROWS][SUMS];
    PK_UNROLL for (size_t r = 0; r < rows; r++)
        PK_UNROLL for (size_t v = 0; v < vectors; v++)
            sums[r][v] = at(to + r * gates + v * PK_LANES);
    for (size_t k = 0; k < hidden; k++, weights += gates) {
        vec w[SUMS];
        PK_UNROLL for (size_t v = 0; v < vectors; v++) w[v] = at(weights + v * PK_LANES);
        PK_UNROLL for (size_t r = 0; r < rows; r++) {
            const vec x = all(h[r * hidden + k]);
            PK_UNROLL for (size_t v = 0; v < vectors; v++) sums[r][v] += x * w[v];
        }
    }
    PK_UNROLL for (size_t r = 0; r < rows; r++)
        PK_UNROLL for (size_t v = 0; v < vectors; v++)
            *(vec *)(to + r * gates + v * PK_LANES) = sums[r][v];
}

static void multiply(size_t rows, const float *h, size_t hidden, const float *weights, size_t gates,
                     float *to)
{
    if (rows == ROWS) {
        size_t c = 0;
        for (; c + 2 * PK_LANES <= gates; c += 2 * PK_LANES)
            multiply_block(ROWS, 2, h, hidden, weights + c, gates, to + c);
        for (; c < gates; c += PK_LANES)
            multiply_block(ROWS, 1, h, hidden, weights + c, gates, to + c);
        return;
    }
    for (size_t r = 0; r < rows; r++, h += hidden, to += gates) {
        size_t c = 0;
        for (; c + SUMS * PK_LANES <= gates; c += SUMS * PK_LANES)
            multiply_block(1, SUMS, h, hidden, weights + c, gates, to + c);
        for (; c + 4 * PK_LANES <= gates; c += 4 * PK_LANES)
            multiply_block(1, 4, h, hidden, weights + c, gates, to + c);
        for (; c < gates; c += PK_LANES)
            multiply_block(1, 1, h, hidden, weights + c, gates, to + c);
    }
}

/* Up to PK_LANES floats, of which `count` exist. */
PK_INLINE vec some(const float *from, size_t count)
{
    if (count == PK_LANES)
        return at(from);
    float x[PK_LANES] = {0};
    memcpy(x, from, count * sizeof(float));
    return at(x);
}

PK_INLINE void put(float *to, vec x, size_t count)
{
    if (count == PK_LANES)
        *(vec *)to = x;
    else
        memcpy(to, &x, count * sizeof(float));
}

static void lstm(const struct pk_f32_cell_task *t, const float *gates, size_t row)
{
    const size_t n = t->hidden, place = row * n;
    for (size_t i = 0; i < n; i += PK_LANES) {
        const size_t count = pk_min(n - i, PK_LANES);
        const vec in = sigmoid_of(some(gates + i, count));
        const vec forget = sigmoid_of(some(gates + n + i, count));
        const vec out = sigmoid_of(some(gates + 2 * n + i, count));
        const vec made = tanh_of(some(gates + 3 * n + i, count));
        const vec cell = forget * some(t->c + place + i, count) + in * made;
        put(t->cell + place + i, cell, count);
        put(t->output + place + i, out * tanh_of(cell), count);
    }
}

static void gru(const struct pk_f32_cell_task *t, const float *gates, size_t row)
{
    const size_t n = t->hidden, place = row * n;
    const float *const input = t->input + t->input_offset + row * t->input_stride + 2 * n;
    for (size_t i = 0; i < n; i += PK_LANES) {
        const size_t count = pk_min(n - i, PK_LANES);
        const vec reset = sigmoid_of(some(gates + i, count));
        const vec update = sigmoid_of(some(gates + n + i, count));
        const vec made = tanh_of(some(input + i, count) + reset * some(gates + 2 * n + i, count));
        const vec h = some(t->h + place + i, count);
        put(t->output + place + i, made + update * (h - made), count);
    }
}

static void cell(const struct pk_f32_cell_task *t)
{
    const size_t n = t->hidden, gates = pk_f32_cell_gates(t);
    const size_t given = t->form == PK_F32_LSTM ? 4 * n : 2 * n;
    float *const scratch = t->scratch;
    for (size_t first = 0; first < t->rows; first += ROWS) {
        const size_t rows = pk_min(t->rows - first, ROWS);
        memset(scratch, 0, rows * gates * sizeof(float));
        for (size_t r = 0; r < rows; r++) {
            float *const to = scratch + r * gates;
            memcpy(to, t->input + t->input_offset + (first + r) * t->input_stride,
                   given * sizeof(float));
            if (t->bias)
                memcpy(to + given, t->bias, n * sizeof(float));
        }
        multiply(rows, t->h + first * n, n, t->weights, gates, scratch);
        for (size_t r = 0; r < rows; r++) {
            if (t->form == PK_F32_LSTM)
                lstm(t, scratch + r * gates, first + r);
            else
                gru(t, scratch + r * gates, first + r);
        }
    }
}
