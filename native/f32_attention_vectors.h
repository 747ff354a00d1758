/* The attention of decoders for vectors of PK_LANES floats. The file that includes this defines
 * PK_ROWS too, the queries whose sums stay in registers together. */
#ifndef PENSTOCK_F32_ATTENTION_VECTORS_H
#define PENSTOCK_F32_ATTENTION_VECTORS_H

#include "f32_decoder_vectors.h"

/* Four vectors cover what is computed of a row of values at once. */
#define PK_SPAN 4

PK_INLINE vec greater(vec a, vec b)
{
    return chosen(a > b, a, b);
}

PK_INLINE float greatest_of(vec x)
{
    float most = x[0];
    for (size_t i = 1; i < PK_LANES; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* tanh, to 2 units in the last place of 1. */
PK_INLINE vec bent(vec x)
{
    return all(1) - all(2) / (all(1) + exponential(x + x));
}

/* Reads `count` floats in a row, for nothing but that: memory brings what is read in order long before
 * it is used, and what is read here and there when it is waited for. */
PK_INLINE void touch(const float *from, size_t count)
{
    vec sum = all(0);
    for (size_t i = 0; i + 16 <= count; i += 16)
        sum += at(from + i);
    __asm__ volatile("" : : "m"(sum));
}

/* `count` rows of int8 as floats. */
static void widen_rows(float *to, const int8_t *from, const float *scales, size_t count, size_t size)
{
    for (size_t r = 0; r < count; r++, from += size, to += size)
        for (size_t c = 0; c < size; c += PK_LANES)
            *(vec *)(to + c) = widened(from + c) * scales[r];
}

/* `count` rows of keys as columns: panel[c * PK_LANES + row]; the rest of the rows is 0. */
static void transpose_keys(float *panel, const float *keys, size_t step, size_t count, size_t size)
{
    size_t c = 0;
#ifdef PK_TRANSPOSE
    if (count == PK_LANES)
        for (; c + PK_LANES <= size; c += PK_LANES)
            PK_TRANSPOSE(panel + c * PK_LANES, PK_LANES, keys + c, step);
#endif
    for (; c < size; c++)
        for (size_t r = 0; r < PK_LANES; r++)
            panel[c * PK_LANES + r] = r < count ? keys[r * step + c] : 0;
}

/* Products of `rows` queries with the keys of a panel. */
PK_INLINE void products(vec *found, const float *const *queries, const float *panel, size_t size,
                        const size_t rows)
{
    vec even[PK_ROWS], odd[PK_ROWS];
    for (size_t r = 0; r < rows; r++)
        even[r] = odd[r] = all(0);
    for (size_t c = 0; c < size; c += 2) {
        const vec a = at(panel + c * PK_LANES), b = at(panel + (c + 1) * PK_LANES);
        for (size_t r = 0; r < rows; r++) {
            even[r] += queries[r][c] * a;
            odd[r] += queries[r][c + 1] * b;
        }
    }
    for (size_t r = 0; r < rows; r++)
        found[r] = even[r] + odd[r];
}

/* Adds the values of a block, weighted, to sums. */
PK_INLINE void add_block(vec sums[PK_ROWS][PK_SPAN], const float *const *weights,
                         const struct pk_f32_columns *block, size_t column, size_t first, size_t size,
                         const size_t rows, const size_t span, const int is_small)
{
    for (size_t j = 0; j < block->count; j++) {
        const size_t place = j * size + first;
        vec v[PK_SPAN];
        for (size_t i = 0; i < span; i++) {
            if (is_small)
                v[i] = widened((const int8_t *)block->values + place + i * PK_LANES) *
                       block->value_scales[j];
            else
                v[i] = at((const float *)block->values + place + i * PK_LANES);
        }
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < span; i++)
                sums[r][i] += weights[r][column + j] * v[i];
    }
}

/* Adds to `to` [rows][size], from its column `first` on, so many vectors of the weighted values. */
PK_INLINE void weighted(float *const *to, const float *const *weights, const float *factors,
                        const struct pk_f32_columns *blocks, size_t count, size_t first, size_t size,
                        const size_t rows, const size_t span, const int first_time)
{
    vec sums[PK_ROWS][PK_SPAN];
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < span; i++)
            sums[r][i] = all(0);
    for (size_t b = 0; b < count; b++) {
        if (blocks[b].value_scales) {
            add_block(sums, weights, blocks + b, b * PK_LANES, first, size, rows, span, 1);
            continue;
        }
        if (first_time)
            touch(blocks[b].values, blocks[b].count * size);
        add_block(sums, weights, blocks + b, b * PK_LANES, first, size, rows, span, 0);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < span; i++)
            *(vec *)(to[r] + first + i * PK_LANES) = sums[r][i] * factors[r];
}

PK_INLINE void weighted_rows(float *const *to, const float *const *weights, const float *factors,
                             const struct pk_f32_columns *blocks, size_t count, size_t size,
                             const size_t rows, int first_time)
{
    size_t first = 0;
    for (; first + PK_SPAN * PK_LANES <= size; first += PK_SPAN * PK_LANES, first_time = 0)
        weighted(to, weights, factors, blocks, count, first, size, rows, PK_SPAN, first_time);
    for (; first < size; first += PK_LANES, first_time = 0)
        weighted(to, weights, factors, blocks, count, first, size, rows, 1, first_time);
}

/* The rows of a tile are its queries: token by token within each head of the group. */
PK_INLINE size_t mask_row(const struct pk_f32_tile *tile, size_t row)
{
    const struct pk_f32_attention_task *t = tile->task;
    return (row / tile->tokens * t->tokens + tile->first + row % tile->tokens) % t->mask_rows;
}

/* Where a query, and its result, lies. */
PK_INLINE size_t place_of(const struct pk_f32_tile *tile, size_t row)
{
    const struct pk_f32_attention_task *t = tile->task;
    const size_t token = tile->first + row % tile->tokens;
    return ((token * t->key_heads + tile->head) * t->group + row / tile->tokens) * t->size;
}

/* Whether some query of the tile sees one of `count` columns; `mask` is in the mask's first row. */
PK_INLINE int sees(const struct pk_f32_tile *tile, const float *mask, size_t count)
{
    const struct pk_f32_attention_task *t = tile->task;
    const size_t columns = t->old + t->tokens, groups = t->mask_rows / t->tokens;
    for (size_t g = 0; g < groups; g++) {
        const float *m = mask + (g * t->tokens + tile->first) * columns;
        for (size_t i = 0; i < tile->tokens; i++, m += columns) {
            int some = 0;
            if (count == PK_LANES) {
                const ints hidden = at(m) <= all(PK_HIDDEN);
                for (size_t j = 0; j < PK_LANES; j++)
                    some |= ~hidden[j];
            } else {
                for (size_t j = 0; j < count; j++)
                    some |= !(m[j] <= PK_HIDDEN);
            }
            if (some)
                return 1;
        }
    }
    return 0;
}

/* The blocks of columns that some query sees, or all. Of each the column of the mask's first row. */
static size_t find_blocks(const struct pk_f32_tile *tile, struct pk_f32_columns *blocks, int every)
{
    const struct pk_f32_attention_task *t = tile->task;
    size_t count = 0;
    for (size_t part = 0; part < 2; part++) {
        const size_t size = part ? t->tokens : t->old;
        const size_t begin = tile->head * size * t->size;
        const size_t step = part ? t->key_heads * t->size : t->size;
        const size_t wide = !part && t->key_scales ? 1 : sizeof(float);
        const char *keys = part ? (const char *)(t->new_keys + tile->head * t->size)
                                : (const char *)t->old_keys + begin * wide;
        const char *values = (const char *)(part ? t->new_values : t->old_values) + begin * wide;
        const float *key_scales = wide == 1 ? t->key_scales + tile->head * size : NULL;
        const float *value_scales = wide == 1 ? t->value_scales + tile->head * size : NULL;
        const float *mask = t->mask + (part ? t->old : 0);
        for (size_t j = 0; j < size; j += PK_LANES) {
            const size_t here = pk_min(PK_LANES, size - j);
            if (every || sees(tile, mask + j, here))
                blocks[count++] = (struct pk_f32_columns){
                    keys + j * step * wide, values + j * t->size * wide,
                    wide == 1 ? key_scales + j : NULL, wide == 1 ? value_scales + j : NULL,
                    mask + j, step, here};
        }
    }
    return count;
}

/* Scores of some queries in one block of columns; `most` has the greatest ones lane by lane. */
PK_INLINE void score(const struct pk_f32_tile *tile, const struct pk_f32_columns *block,
                     const float *panel, float *scores, size_t stride, vec *most, size_t row,
                     const size_t rows)
{
    const struct pk_f32_attention_task *t = tile->task;
    const size_t columns = t->old + t->tokens;
    const float *queries[PK_ROWS];
    vec found[PK_ROWS];
    for (size_t r = 0; r < rows; r++)
        queries[r] = t->query + place_of(tile, row + r);
    products(found, queries, panel, t->size, rows);
    for (size_t r = 0; r < rows; r++) {
        const float *m = block->mask + mask_row(tile, row + r) * columns;
        vec mask;
        if (block->count == PK_LANES) {
            mask = at(m);
        } else {
            float tail[PK_LANES];
            for (size_t j = 0; j < PK_LANES; j++)
                tail[j] = j < block->count ? m[j] : -3e38f;
            mask = at(tail);
        }
        vec s = found[r] * t->factor;
        if (t->cap != 0)
            s = bent(s) * t->cap;
        s = s + mask;
        *(vec *)(scores + (row + r) * stride) = s;
        most[row + r] = greater(s, most[row + r]);
    }
}

/* Calls `work` with a constant number of rows: PK_ROWS, then what is left. */
#define PK_BY_ROWS(total, work)                                                                    \
    for (size_t row = 0; row < (total);) {                                                         \
        const size_t left = (total) - row;                                                         \
        if (left >= PK_ROWS) {                                                                     \
            work(PK_ROWS);                                                                         \
            row += PK_ROWS;                                                                        \
        } else if (left >= 3 && PK_ROWS > 3) {                                                     \
            work(3);                                                                               \
            row += 3;                                                                              \
        } else if (left >= 2) {                                                                    \
            work(2);                                                                               \
            row += 2;                                                                              \
        } else {                                                                                   \
            work(1);                                                                               \
            row += 1;                                                                              \
        }                                                                                          \
    }

static void attend(const struct pk_f32_tile *tile)
{
    const struct pk_f32_attention_task *t = tile->task;
    const size_t rows = tile->tokens * t->group;
    const size_t most_blocks = pk_divide_up(t->old, PK_LANES) + pk_divide_up(t->tokens, PK_LANES);
    struct pk_f32_columns *blocks = (struct pk_f32_columns *)tile->scratch;
    float *panel = (float *)(tile->scratch + pk_round_up(most_blocks * sizeof *blocks, PK_ALIGNMENT));
    float *wide = panel + PK_LANES * t->size;
    float *scores = wide + PK_LANES * t->size;
    vec *most = (vec *)(scores + rows * most_blocks * PK_LANES);
    float *factors = (float *)(most + rows);
    size_t count = find_blocks(tile, blocks, 0), stride;
    for (int every = 0;; every = 1) {
        stride = count * PK_LANES;
        for (size_t r = 0; r < rows; r++)
            most[r] = all(-3e38f);
        for (size_t b = 0; b < count; b++) {
            const float *keys = blocks[b].keys;
            if (blocks[b].key_scales) {
                widen_rows(wide, blocks[b].keys, blocks[b].key_scales, blocks[b].count, t->size);
                keys = wide;
            } else if (blocks[b].key_step == t->size) {
                touch(keys, blocks[b].count * t->size);
            }
            transpose_keys(panel, keys, blocks[b].key_step, blocks[b].count, t->size);
#define PK_SCORE(n) \
    score(tile, blocks + b, panel, scores + b * PK_LANES, stride, most, row, n)
            PK_BY_ROWS(rows, PK_SCORE)
#undef PK_SCORE
        }
        size_t hidden = 0;
        for (size_t r = 0; r < rows; r++)
            hidden += !(greatest_of(most[r]) > 0.5f * PK_HIDDEN);
        if (every || !hidden)
            break;
        /* A query that sees nothing weighs all that is hidden from it. */
        count = find_blocks(tile, blocks, 1);
    }
    for (size_t r = 0; r < rows; r++) {
        const float greatest = greatest_of(most[r]);
        vec sum = all(0);
        float *s = scores + r * stride;
        for (size_t i = 0; i < stride; i += PK_LANES) {
            const vec e = exponential(at(s + i) - greatest);
            *(vec *)(s + i) = e;
            sum += e;
        }
        factors[r] = 1.0f / sum_of(sum);
    }
#define PK_WEIGHTED(n)                                                                             \
    do {                                                                                           \
        float *to[PK_ROWS];                                                                        \
        const float *weights[PK_ROWS];                                                             \
        for (size_t i = 0; i < (n); i++) {                                                         \
            to[i] = t->output + place_of(tile, row + i);                                           \
            weights[i] = scores + (row + i) * stride;                                              \
        }                                                                                          \
        weighted_rows(to, weights, factors + row, blocks, count, t->size, n, row == 0);            \
    } while (0)
    PK_BY_ROWS(rows, PK_WEIGHTED)
#undef PK_WEIGHTED
}
#endif
