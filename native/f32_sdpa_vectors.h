/* Scaled dot-product attention for vectors of PK_LANES floats. The file that includes this defines
 * PK_LANES, ROWS (whose products stay in registers together, up to PK_F32_SDPA_ROWS) and
 * `fused(a, b, c)`, which is a * b + c, and may define PK_TRANSPOSE; see f32_sdpa.h. */
#include "f32_sdpa.h"
#include "f32_vectors.h"
#include "unroll.h"

#include <string.h>

/* Vectors of a row whose sums stay in registers. */
#ifndef WIDE
#define WIDE 3
#endif
#define LOWEST (-__builtin_inff())

/* e to the power of x - most, which is not above 0; 0 where that is tiny. XNNPACK's polynomial, in its
 * order of operations. */
PK_INLINE vec exponential_below(vec x, vec most)
{
    const vec magic = all(0x1.8000FEp23f);
    x = x - most;
    vec n = fused(x, all(0x1.715476p+0f), magic);
    const vec s = (vec)((ints)n << 23);
    n = n - magic;
    vec t = fused(n, all(-0x1.62E400p-1f), x);
    t = fused(n, all(-0x1.7F7D1Cp-20f), t);
    vec p = fused(all(0x1.0F9F9Cp-7f), t, all(0x1.573A1Ap-5f));
    p = fused(p, t, all(0x1.555A80p-3f));
    p = fused(p, t, all(0x1.FFFDC6p-2f));
    p = fused(p, t, all(0x1.FFFFF6p-1f));
    t = t * s;
    return chosen(x < all(-0x1.5D589Ep6f), all(0), fused(t, p, s));
}

/* Halves are added to each other until one number is left. */
PK_INLINE float sum_of(vec x)
{
    float lanes[PK_LANES];
    memcpy(lanes, &x, sizeof lanes);
    PK_UNROLL
    for (size_t half = PK_LANES / 2; half; half /= 2) {
        PK_UNROLL
        for (size_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

PK_INLINE float greatest_of(vec x)
{
    float lanes[PK_LANES];
    memcpy(lanes, &x, sizeof lanes);
    PK_UNROLL
    for (size_t half = PK_LANES / 2; half; half /= 2) {
        PK_UNROLL
        for (size_t i = 0; i < half; i++)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    }
    return lanes[0];
}

/* The softmax of one or two rows of scores, `columns` (whole vectors) apart, of which `count` exist. */
PK_INLINE void softmax(float *scores, size_t columns, size_t count, const int rows)
{
    vec most[2], even[2], odd[2];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        most[r] = at(scores + r * columns);
    for (size_t c = PK_LANES; c < columns; c += PK_LANES) {
        PK_UNROLL
        for (int r = 0; r < rows; r++) {
            const vec x = at(scores + r * columns + c);
            most[r] = chosen(x > most[r], x, most[r]);
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        most[r] = all(greatest_of(most[r]));
        even[r] = odd[r] = all(0);
    }
    size_t c = 0;
    for (; c + 4 * PK_LANES <= count; c += 4 * PK_LANES) {
        PK_UNROLL
        for (int i = 0; i < 4; i++) {
            PK_UNROLL
            for (int r = 0; r < rows; r++) {
                float *const to = scores + r * columns + c + i * PK_LANES;
                const vec x = exponential_below(at(to), most[r]);
                *(vec *)to = x;
                if (i % 2)
                    odd[r] += x;
                else
                    even[r] += x;
            }
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        even[r] += odd[r];
    for (; c < columns; c += PK_LANES) {
        PK_UNROLL
        for (int r = 0; r < rows; r++) {
            float *const to = scores + r * columns + c;
            const vec x = exponential_below(at(to), most[r]);
            *(vec *)to = x;
            even[r] += x;
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        most[r] = all(1.0f / sum_of(even[r]));
    for (c = 0; c < columns; c += PK_LANES) {
        PK_UNROLL
        for (int r = 0; r < rows; r++) {
            vec *const to = (vec *)(scores + r * columns + c);
            *to = *to * most[r];
        }
    }
}

/* Adds to `found` what number `k` of `rows` rows of a makes with a line of b. */
PK_INLINE void add_product(vec found[ROWS][WIDE], const float *const *a, size_t k, const float *b,
                           const int rows, const int wide)
{
    vec line[WIDE];
    PK_UNROLL
    for (int i = 0; i < wide; i++)
        line[i] = at(b + i * PK_LANES);
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        const vec x = all(a[r][k]);
        PK_UNROLL
        for (int i = 0; i < wide; i++) {
            found[r][i] = fused(x, line[i], found[r][i]);
            PK_KEEP(found[r][i]);
        }
    }
    PK_RELOAD;
}

/* `rows` rows of a by `wide` vectors of b's columns, `step` apart from one line of b to the next. */
PK_INLINE void product(vec found[ROWS][WIDE], const float *const *a, const float *b, size_t step,
                       size_t depth, const int rows, const int wide)
{
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        PK_UNROLL
        for (int i = 0; i < wide; i++)
            found[r][i] = all(0);
    }
    size_t k = 0;
    for (; k + 4 <= depth; k += 4, b += 4 * step) {
        PK_UNROLL
        for (int i = 0; i < 4; i++)
            add_product(found, a, k + i, b + i * step, rows, wide);
    }
    for (; k < depth; k++, b += step)
        add_product(found, a, k, b, rows, wide);
}

/* Of `vectors` that are left in a row, those that come next: rows are shared out about alike. */
PK_INLINE size_t width(size_t vectors)
{
    return pk_divide_up(vectors, pk_divide_up(vectors, WIDE));
}

/* What is added to some columns of a row of scores, from column `c` on, of which `left` exist. */
PK_INLINE vec addend(const float *from, size_t step, size_t c, size_t left)
{
    return step ? some(from + c, pk_min(left, PK_LANES)) : all(*from);
}

/* The scores of `rows` queries from `row` on, from column `first` on. */
PK_INLINE void score(const struct pk_f32_sdpa_part *part, size_t row, const float *const *queries,
                     const float *keys, float *scores, size_t columns, size_t first,
                     const int rows, const int wide)
{
    const struct pk_f32_sdpa_task *t = part->task;
    vec found[ROWS][WIDE];
    product(found, queries, keys + first * t->size, wide * PK_LANES, t->size, rows, wide);
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        PK_UNROLL
        for (int i = 0; i < wide; i++) {
            const size_t c = first + i * PK_LANES;
            const size_t left = t->columns > c ? t->columns - c : 0;
            vec x = found[r][i];
            if (t->factor != 1)
                x = x * t->factor;
            for (size_t a = 0; a < PK_F32_SDPA_ADDENDS && part->addends[a]; a++) {
                const struct pk_f32_sdpa_operand *const steps = &t->addend_steps[a];
                x = x + addend(part->addends[a] + (row + r) * steps->row, steps->column, c, left);
            }
            if (left < PK_LANES)
                x = chosen(lanes_below(left), x, all(LOWEST));
            *(vec *)(scores + r * columns + c) = x;
        }
    }
}

/* `rows` rows of `wide` vectors, of which `left` numbers are part of the output. */
PK_INLINE void put(vec found[ROWS][WIDE], float *to, size_t step, size_t left,
                   const int rows, const int wide)
{
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        PK_UNROLL
        for (int i = 0; i < wide; i++) {
            const size_t before = (size_t)i * PK_LANES;
            if (left > before)
                put_some(to + r * step + before, found[r][i], pk_min(left - before, PK_LANES));
        }
    }
}

/* `rows` queries from `row` on: their scores, the softmax of these, and its product with the values,
 * of which `depth` are in a line. */
PK_INLINE void attend_rows(const struct pk_f32_sdpa_part *part, size_t row, const float *keys,
                           const float *values, float *scores, size_t columns, size_t depth,
                           const int rows)
{
    const struct pk_f32_sdpa_task *t = part->task;
    const float *queries[ROWS], *weights[ROWS];
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        queries[r] = part->query + (row + r) * t->query_steps.row;
        weights[r] = scores + r * columns;
    }
    for (size_t first = 0, wide; first < columns; first += wide * PK_LANES) {
        wide = width((columns - first) / PK_LANES);
        if (WIDE > 2 && wide == 3)
            score(part, row, queries, keys, scores, columns, first, rows, 3);
        else if (wide == 2)
            score(part, row, queries, keys, scores, columns, first, rows, 2);
        else
            score(part, row, queries, keys, scores, columns, first, rows, 1);
    }
    for (int r = 0; r + 1 < rows; r += 2)
        softmax(scores + r * columns, columns, t->columns, 2);
    if (rows % 2)
        softmax(scores + (rows - 1) * columns, columns, t->columns, 1);
    float *const to = part->output + row * t->output_steps.row;
    for (size_t first = 0, wide; first < depth; first += wide * PK_LANES) {
        vec found[ROWS][WIDE];
        const size_t step = t->output_steps.row, left = t->depth - first;
        const float *const panel = values + first * t->columns;
        wide = width((depth - first) / PK_LANES);
        if (WIDE > 2 && wide == 3) {
            product(found, weights, panel, 3 * PK_LANES, t->columns, rows, 3);
            put(found, to + first, step, left, rows, 3);
        } else if (wide == 2) {
            product(found, weights, panel, 2 * PK_LANES, t->columns, rows, 2);
            put(found, to + first, step, left, rows, 2);
        } else {
            product(found, weights, panel, 1 * PK_LANES, t->columns, rows, 1);
            put(found, to + first, step, left, rows, 1);
        }
    }
}

/* Columns `c` to `c` + PK_LANES of the keys as lines, `step` apart, one for each of their values; what
 * does not exist is 0. */
PK_INLINE void pack_keys(const struct pk_f32_sdpa_part *part, size_t c, float *to, size_t step)
{
    const struct pk_f32_sdpa_task *t = part->task;
    const size_t row = t->key_steps.row, column = t->key_steps.column;
    const size_t count = pk_min(t->columns - c, PK_LANES);
    const float *const from = part->keys + c * row;
    size_t k = 0;
    if (count < PK_LANES) {
        for (; k < t->size; k++)
            *(vec *)(to + k * step) = all(0);
        for (size_t i = 0; i < count; i++)
            for (k = 0; k < t->size; k++)
                to[k * step + i] = from[i * row + k * column];
        return;
    }
    if (row == 1)
        for (; k < t->size; k++)
            *(vec *)(to + k * step) = at(from + k * column);
#ifdef PK_TRANSPOSE
    for (; column == 1 && k + PK_LANES <= t->size; k += PK_LANES)
        PK_TRANSPOSE(to + k * step, step, from + k, row);
#endif
    for (; k < t->size; k++)
        for (size_t i = 0; i < PK_LANES; i++)
            to[k * step + i] = from[i * row + k * column];
}

/* Values from `first` on of each column, as lines of `wide` vectors, filled up with 0. */
PK_INLINE void pack_values(const struct pk_f32_sdpa_part *part, size_t first, float *to, const int wide)
{
    const struct pk_f32_sdpa_task *t = part->task;
    const size_t step = (size_t)wide * PK_LANES, count = pk_min(t->depth - first, step);
    const size_t row = t->value_steps.row, column = t->value_steps.column;
    const float *from = part->values + first * column;
    if (count == step && column == 1) {
        for (size_t c = t->columns; c; c--, from += row, to += step)
            PK_UNROLL
            for (int i = 0; i < wide; i++)
                *(vec *)(to + i * PK_LANES) = at(from + i * PK_LANES);
        return;
    }
    for (size_t c = t->columns; c; c--, from += row, to += step)
        for (size_t i = 0; i < step; i++)
            to[i] = i < count ? from[i * column] : 0;
}

static void attend(const struct pk_f32_sdpa_part *part)
{
    const struct pk_f32_sdpa_task *t = part->task;
    const size_t columns = pk_round_up(t->columns, PK_LANES);
    const size_t depth = pk_round_up(t->depth, PK_LANES);
    float *const keys = part->scratch, *const values = keys + t->size * columns;
    float *const scores = values + t->columns * depth;
    /* Both in panels, each with as many vectors of a line as are multiplied at a time. */
    for (size_t first = 0, wide; first < columns; first += wide) {
        wide = width((columns - first) / PK_LANES) * PK_LANES;
        for (size_t c = first; c < first + wide; c += PK_LANES)
            pack_keys(part, c, keys + first * t->size + c - first, wide);
    }
    for (size_t first = 0, wide; first < depth; first += wide) {
        wide = width((depth - first) / PK_LANES);
        if (WIDE > 2 && wide == 3)
            pack_values(part, first, values + first * t->columns, 3);
        else if (wide == 2)
            pack_values(part, first, values + first * t->columns, 2);
        else
            pack_values(part, first, values + first * t->columns, 1);
        wide *= PK_LANES;
    }
    /* As many tiles are one row smaller as leave no rest, if there are so many. */
    size_t row = 0, smaller = pk_round_up(part->rows, ROWS) - part->rows;
    if (smaller > pk_divide_up(part->rows, ROWS))
        smaller = 0;
#if ROWS > 2
    for (; smaller; smaller--, row += ROWS - 1)
        attend_rows(part, row, keys, values, scores, columns, depth, ROWS - 1);
#endif
    for (; part->rows - row >= ROWS; row += ROWS)
        attend_rows(part, row, keys, values, scores, columns, depth, ROWS);
#if ROWS > 4
    if (part->rows - row >= 4) {
        attend_rows(part, row, keys, values, scores, columns, depth, 4);
        row += 4;
    }
#endif
    if (part->rows - row >= 2) {
        attend_rows(part, row, keys, values, scores, columns, depth, 2);
        row += 2;
    }
    if (part->rows - row)
        attend_rows(part, row, keys, values, scores, columns, depth, 1);
}
