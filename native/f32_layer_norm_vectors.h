/* Layer norms for vectors of PK_LANES floats, by the compiler's vector types. The file that includes this
 * defines PK_LANES, `fused(a, b, c)` of single floats, which is a * b + c, and `inverse_root(x)`; see
 * f32_layer_norm.h. */
#include "f32_layer_norm.h"
#include "f32_vectors.h"
#include "unroll.h"

#include <string.h>

/* Rows whose chains of sums, each of which waits for the one before it, run side by side. */
#define ROWS 8
/* XNNPACK's pooling adds so many values at a time, by twos. */
#define POOLED 9

PK_INLINE vec value(const float *x, float mean, const int squared, size_t count)
{
    vec y = some(x, count);
    if (squared) {
        y = y - all(mean);
        y = y * y;
    }
    return y;
}

/* before + a sum of `count` values that are `step` apart; zeros stand for missing ones. */
PK_INLINE vec pooled(vec before, const float *x, size_t step, const size_t count, float mean,
                     const int squared, size_t lanes)
{
    vec v[POOLED];
    PK_UNROLL for (size_t i = 0; i < POOLED; i++)
    {
        v[i] = all(0);
        if (i < count)
            v[i] = value(x + i * step, mean, squared, lanes);
    }
    return before + (((v[2] + v[3]) + (v[4] + v[5])) + (((v[0] + v[1]) + v[8]) + (v[6] + v[7])));
}

#define CASE(n)                                                                                      \
    case n:                                                                                          \
        return pooled(before, x, step, n, mean, squared, lanes);

PK_INLINE vec pooled_rest(vec before, const float *x, size_t step, size_t count, float mean,
                          const int squared, size_t lanes)
{
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
    default:
        return pooled(before, x, step, POOLED, mean, squared, lanes);
    }
}

/* The sums of a row, or of the squares of its differences from the mean. */
PK_INLINE void sums_of(const struct pk_f32_row_mean *of, const float *x, float mean, const int squared,
                       float *sums)
{
    const size_t parts = of->parts, width = of->width;
    const vec share = all(1.0f / (float)parts);
    for (size_t c = 0; c < width; c += PK_LANES) {
        const size_t lanes = pk_min(width - c, PK_LANES);
        if (parts == 1) {
            put_some(sums + c, value(x + c, mean, squared, lanes), lanes);
            continue;
        }
        vec sum = all(0);
        size_t first = 0;
        for (; parts - first > POOLED; first += POOLED)
            sum = pooled(sum, x + first * width + c, width, POOLED, mean, squared, lanes);
        sum = pooled_rest(sum, x + first * width + c, width, parts - first, mean, squared, lanes);
        put_some(sums + c, sum * share, lanes);
    }
}

/* Of each row the sum of its sums, times the column's weight. */
PK_INLINE void means_of(const struct pk_f32_row_mean *of, const float *const sums[ROWS], float *means)
{
    const size_t width = of->width;
    const float column = of->column;
    const float *rows[ROWS];
    float chains[ROWS] = {0};
    memcpy(rows, sums, sizeof rows);
    for (size_t k = 0; k < width; k++)
        PK_UNROLL for (size_t r = 0; r < ROWS; r++) chains[r] = fused(rows[r][k], column, chains[r]);
    memcpy(means, chains, sizeof chains);
}

PK_INLINE void finish(const struct pk_f32_layer_norm_task *t, const float *x, float mean, float root,
                      float *to)
{
    const size_t channels = t->channels;
    for (size_t c = 0; c < channels; c += PK_LANES) {
        const size_t lanes = pk_min(channels - c, PK_LANES);
        vec y = (some(x + c, lanes) - all(mean)) * all(root);
        if (t->weight)
            y = y * some(t->weight + c, lanes);
        if (t->bias)
            y = y + some(t->bias + c, lanes);
        put_some(to + c, y, lanes);
    }
}

static void run(const struct pk_f32_layer_norm_task *t, size_t begin, size_t end)
{
    const size_t channels = t->channels;
    float sums[ROWS][PK_F32_LAYER_NORM_WIDTH];
    const float *of_sums[ROWS], *of_values[ROWS];
    float means[ROWS], roots[2 * ROWS] = {0}; /* of a vector, which may be longer */
    memset(sums, 0, sizeof sums);
    for (; begin < end; begin += ROWS) {
        const size_t rows = pk_min(end - begin, ROWS);
        const float *const x = t->input + begin * channels;
        for (size_t r = 0; r < ROWS; r++) {
            of_sums[r] = sums[r];
            of_values[r] = x + pk_min(r, rows - 1) * channels;
        }
        if (t->mean.parts > 1)
            for (size_t r = 0; r < rows; r++)
                sums_of(&t->mean, x + r * channels, 0, 0, sums[r]);
        means_of(&t->mean, t->mean.parts > 1 ? of_sums : of_values, means);
        for (size_t r = 0; r < rows; r++)
            sums_of(&t->variance, x + r * channels, means[r], 1, sums[r]);
        means_of(&t->variance, of_sums, roots);
        for (size_t r = 0; r < ROWS; r += PK_LANES)
            *(vec *)(roots + r) = inverse_root(at(roots + r) + all(t->epsilon));
        for (size_t r = 0; r < rows; r++)
            finish(t, x + r * channels, means[r], roots[r], t->output + (begin + r) * channels);
    }
}
