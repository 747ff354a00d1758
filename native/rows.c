/* See rows.h. */
#include "rows.h"

#include <string.h>

static int out_of_range(const int64_t *index, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++)
        if (index[i] < 0 || (uint64_t)index[i] >= size)
            return 1;
    return 0;
}

/* The runs of the innermost dimension. */
static void move(const struct pk_rows_move_task *task, const char *from, char *to)
{
    const size_t last = task->rank - 1, count = task->sizes[last], run = task->run;
    const ptrdiff_t from_step = task->from[last], to_step = task->to[last];
#define RUNS(size)                                                                                 \
    for (size_t i = 0; i < count; i++)                                                             \
    memcpy(to + (ptrdiff_t)i * to_step, from + (ptrdiff_t)i * from_step, size)
    switch (run) {
    case 1:
        RUNS(1);
        break;
    case 4:
        RUNS(4);
        break;
    case 8:
        RUNS(8);
        break;
    default:
        RUNS(run);
        break;
    }
#undef RUNS
}

void pk_rows_move_run(const struct pk_rows_move_task *task, const struct pk_pool *pool)
{
    (void)pool;
    size_t at[PK_MOVE_RANK] = {0};
    const char *from = task->input;
    char *to = task->output;
    for (;;) {
        move(task, from, to);
        size_t d = task->rank - 1;
        while (d > 0 && ++at[d - 1] == task->sizes[d - 1]) {
            at[d - 1] = 0;
            from -= (ptrdiff_t)(task->sizes[d - 1] - 1) * task->from[d - 1];
            to -= (ptrdiff_t)(task->sizes[d - 1] - 1) * task->to[d - 1];
            d--;
        }
        if (d == 0)
            return;
        from += task->from[d - 1];
        to += task->to[d - 1];
    }
}

void pk_rows_gather_run(struct pk_rows_gather_task *task, const struct pk_pool *pool)
{
    (void)pool;
    const size_t inner = task->inner;
    char *to = task->output;
    task->status = out_of_range(task->index, task->count, task->size);
    if (task->status)
        return;
    for (size_t o = 0; o < task->outer; o++) {
        const char *from = (const char *)task->input + o * task->size * inner;
        if (inner == 4) {
            for (size_t i = 0; i < task->count; i++, to += 4)
                memcpy(to, from + 4 * task->index[i], 4);
            continue;
        }
        for (size_t i = 0; i < task->count; i++, to += inner)
            memcpy(to, from + (size_t)task->index[i] * inner, inner);
    }
}

void pk_rows_scale_run(struct pk_rows_scale_task *task, const struct pk_pool *pool)
{
    (void)pool;
    const size_t columns = task->columns;
    task->status = out_of_range(task->index, task->count, task->size);
    if (task->status)
        return;
    for (size_t i = 0; i < task->count; i++) {
        const size_t row = (size_t)task->index[i];
        const float scale = task->scales[row];
        const int8_t *restrict from = task->table + (task->picks ? row : i) * columns;
        float *restrict to = task->output + i * columns;
        for (size_t c = 0; c < columns; c++)
            to[c] = (float)from[c] * scale;
    }
}

static void put(const struct pk_rows_target *t, const int64_t *index, size_t count)
{
    for (size_t o = 0; o < t->outer; o++)
        for (size_t i = 0; i < count; i++)
            memcpy((char *)t->target + (o * t->size + (size_t)index[i]) * t->inner,
                   (const char *)t->source + (o * count + i) * t->step, t->inner);
}

void pk_rows_put_run(struct pk_rows_put_task *task, const struct pk_pool *pool)
{
    (void)pool;
    task->status = 0;
    for (size_t t = 0; t < task->targets; t++)
        task->status |= out_of_range(task->index, task->count, task->each[t].size);
    for (size_t t = 0; t < task->targets && !task->status; t++)
        put(task->each + t, task->index, task->count);
}

#define EACH(type, expression)                                                                     \
    for (size_t r = 0; r < task->rows; r++)                                                        \
        for (size_t c = 0; c < task->columns; c++)                                                 \
            ((type *)task->output)[r * task->columns + c] = (expression)
#define OPERAND(type, x) (((const type *)task->x.data)[r * task->x.row + c * task->x.column])
#define A OPERAND(int64_t, a)
#define B OPERAND(int64_t, b)

void pk_ints_run(const struct pk_ints_task *task, const struct pk_pool *pool)
{
    (void)pool;
    switch (task->operation) {
    case PK_INTS_ADD:
        EACH(uint64_t, (uint64_t)A + (uint64_t)task->factor * (uint64_t)B);
        break;
    case PK_INTS_LESS:
        EACH(uint8_t, A < B);
        break;
    case PK_INTS_LESS_EQUAL:
        EACH(uint8_t, A <= B);
        break;
    default:
        EACH(uint8_t, A == B);
        break;
    }
}

void pk_choose_run(const struct pk_choose_task *task, const struct pk_pool *pool)
{
    (void)pool;
    EACH(uint32_t, OPERAND(uint8_t, condition) ? OPERAND(uint32_t, a) : OPERAND(uint32_t, b));
}

void pk_both_run(const struct pk_both_task *task, const struct pk_pool *pool)
{
    (void)pool;
    EACH(uint8_t, OPERAND(uint8_t, a) & OPERAND(uint8_t, b));
}

void pk_copy_run(const struct pk_copy_task *task, const struct pk_pool *pool)
{
    (void)pool;
    if (task->output != task->input)
        memcpy(task->output, task->input, task->size);
}

const char *pk_copy_kernel(uint32_t isa)
{
    (void)isa;
    return "scalar";
}
