/* Scaled dot-product attention: spreading heads and rows over threads. See f32_sdpa.h. */
#include "f32_sdpa.h"

static const struct pk_f32_sdpa_kernel *kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_sdpa_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_sdpa_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_sdpa_neon;
#endif
    (void)isa;
    return &pk_f32_sdpa_scalar;
}

const char *pk_f32_sdpa_kernel(uint32_t isa)
{
    return kernel_for(isa)->name;
}

/* Of a worker: keys and values in the kernels' form, and the scores of some rows. */
static size_t scratch_of(const struct pk_f32_sdpa_task *task)
{
    const size_t columns = pk_round_up(task->columns, PK_F32_SDPA_COLUMNS);
    const size_t depth = pk_round_up(task->depth, PK_F32_SDPA_COLUMNS);
    const size_t floats = columns * task->size + task->columns * depth + PK_F32_SDPA_ROWS * columns;
    return pk_round_up(floats * sizeof(float), PK_ALIGNMENT);
}

/* Parts of the rows of each head: several, which all have to bring keys and values into their form,
 * only where there are few heads. */
static size_t parts_of(const struct pk_f32_sdpa_task *task)
{
    const size_t heads = task->batches * task->heads, wanted = 2 * task->threads;
    if (task->threads < 2 || heads >= wanted)
        return 1;
    return pk_min(pk_divide_up(wanted, heads), pk_divide_up(task->rows, 4 * PK_F32_SDPA_ROWS));
}

static size_t workers_of(const struct pk_f32_sdpa_task *task)
{
    const size_t units = task->batches * task->heads * parts_of(task);
    return task->threads > 1 ? pk_min(units, 2 * task->threads) : 1;
}

size_t pk_f32_sdpa_scratch_size(const struct pk_f32_sdpa_task *task)
{
    return workers_of(task) * scratch_of(task);
}

struct work {
    const struct pk_f32_sdpa_task *task;
    const struct pk_f32_sdpa_kernel *kernel;
    size_t parts, workers;
};

static size_t place(const struct pk_f32_sdpa_operand *steps, size_t batch, size_t head, size_t row)
{
    if (steps->period)
        batch %= steps->period;
    return batch * steps->batch + head * steps->head + row * steps->row;
}

static void run_worker(void *context, size_t index)
{
    const struct work *w = context;
    const struct pk_f32_sdpa_task *t = w->task;
    const size_t units = t->batches * t->heads * w->parts;
    struct pk_f32_sdpa_part part = {.task = t};
    part.scratch = (float *)((char *)t->scratch + index * scratch_of(t));
    for (size_t i = units * index / w->workers; i < units * (index + 1) / w->workers; i++) {
        const size_t batch = i / w->parts / t->heads, head = i / w->parts % t->heads;
        const size_t first = pk_part_begin(t->rows, w->parts, 1, i % w->parts);
        part.rows = pk_part_begin(t->rows, w->parts, 1, i % w->parts + 1) - first;
        part.query = t->query + place(&t->query_steps, batch, head, first);
        part.keys = t->keys + place(&t->key_steps, batch, head, 0);
        part.values = t->values + place(&t->value_steps, batch, head, 0);
        part.output = t->output + place(&t->output_steps, batch, head, first);
        for (size_t a = 0; a < PK_F32_SDPA_ADDENDS; a++)
            part.addends[a] = t->addends[a]
                                  ? t->addends[a] + place(&t->addend_steps[a], batch, head, first)
                                  : NULL;
        w->kernel->attend(&part);
    }
}

void pk_f32_sdpa_run(const struct pk_f32_sdpa_task *task, const struct pk_pool *pool)
{
    struct work w = {task, kernel_for(task->isa), parts_of(task), workers_of(task)};
    pk_parallelize(pool, run_worker, &w, w.workers);
}
