/* What programs do around their delegates, at shapes that stay: elements moved, rows picked and
 * written by position, arithmetic and comparisons of integers. `status` becomes 1 where a position is
 * out of range; then nothing was written but, of a gather, rows before it. */
#ifndef PENSTOCK_ROWS_H
#define PENSTOCK_ROWS_H

#include "core.h"

#define PK_MOVE_RANK 8

/* Runs of `run` bytes, `sizes` of them in `rank` dimensions (at least 1), which lie as far apart as
 * `from` and `to` say, in bytes. Input and output do not overlap. */
struct pk_rows_move_task {
    size_t run, rank;
    size_t sizes[PK_MOVE_RANK];
    ptrdiff_t from[PK_MOVE_RANK], to[PK_MOVE_RANK];
    const void *input;
    void *output;
};

/* output[o][i] = input[o][index[i]], elements of `inner` bytes, `size` of them in a row of input. */
struct pk_rows_gather_task {
    size_t outer, size, inner, count;
    const void *input;
    const int64_t *index;
    void *output;
    int status;
};

/* output[i] = table[i] * scales[index[i]], of `columns` int8 values; `size` scales. With `picks` it is
 * table[index[i]]. */
struct pk_rows_scale_task {
    size_t size, columns, count, picks;
    const int8_t *table;
    const float *scales;
    const int64_t *index;
    float *output;
    int status;
};

/* target[o][index[i]] = source[o][i], elements of `inner` bytes, `size` of them in a row of target;
 * `step` bytes from element to element of source, 0 for one that is written everywhere. */
struct pk_rows_target {
    size_t outer, size, inner, step;
    void *target;
    const void *source;
};

struct pk_rows_put_task {
    size_t targets, count;
    const struct pk_rows_target *each;
    const int64_t *index;
    int status;
};

enum pk_ints_operation {
    PK_INTS_ADD, /* a + factor * b, modulo 2^64 */
    PK_INTS_LESS,
    PK_INTS_LESS_EQUAL,
    PK_INTS_EQUAL,
};

/* An operand [rows, columns]: elements from row to row and from column to column, 0 to repeat. */
struct pk_operand {
    const void *data;
    size_t row, column;
};

/* int64 to int64, or to bool (a byte) by comparisons. */
struct pk_ints_task {
    size_t operation, rows, columns;
    int64_t factor;
    struct pk_operand a, b;
    void *output;
};

/* output = condition (bool) ? a : b, elements of 4 bytes. */
struct pk_choose_task {
    size_t rows, columns;
    struct pk_operand condition, a, b;
    void *output;
};

/* output = a & b, bool. */
struct pk_both_task {
    size_t rows, columns;
    struct pk_operand a, b;
    void *output;
};

/* output = input, which may be the same place. */
struct pk_copy_task {
    size_t size;
    const void *input;
    void *output;
};

PK_EXPORT void pk_copy_run(const struct pk_copy_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_copy_kernel(uint32_t isa);
PK_EXPORT void pk_rows_move_run(const struct pk_rows_move_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_rows_gather_run(struct pk_rows_gather_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_rows_scale_run(struct pk_rows_scale_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_rows_put_run(struct pk_rows_put_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_ints_run(const struct pk_ints_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_choose_run(const struct pk_choose_task *task, const struct pk_pool *pool);
PK_EXPORT void pk_both_run(const struct pk_both_task *task, const struct pk_pool *pool);
#endif
