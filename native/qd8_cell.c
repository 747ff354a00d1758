/* Steps of recurrent layers with int8 weights. See qd8_cell.h. */
#include "qd8_cell.h"

static struct pk_qd8_quantize rows_of(const struct pk_qd8_product *p)
{
    return (struct pk_qd8_quantize){p->isa, p->rows, p->inputs, p->threads};
}

static size_t quantized_size(const struct pk_qd8_product *product)
{
    const struct pk_qd8_quantize rows = rows_of(product);
    return pk_round_up(pk_qd8_quantize_size(&rows), PK_ALIGNMENT);
}

static size_t sums_size(const struct pk_qd8_product *p)
{
    return pk_round_up(p->rows * p->outputs * sizeof(float), PK_ALIGNMENT);
}

size_t pk_qd8_cell_scratch_size(const struct pk_qd8_cell_task *task)
{
    const struct pk_qd8_product *const p = &task->product;
    return quantized_size(p) + sums_size(p) + pk_qd8_product_scratch_size(p);
}

void pk_qd8_cell_run(const struct pk_qd8_cell_task *task, const struct pk_pool *pool)
{
    const struct pk_qd8_product *const p = &task->product;
    char *const quantized = task->scratch, *const sums = quantized + quantized_size(p);
    const struct pk_qd8_quantize_task rows = {rows_of(p), task->h, quantized};
    const struct pk_qd8_product_task product = {
        *p, task->packed, quantized, (float *)sums, sums + sums_size(p),
    };
    struct pk_f32_cell_task step = task->step;
    step.input = task->input;
    step.h = task->h;
    step.c = task->c;
    step.cell = task->cell;
    step.output = task->output;
    step.product = (const float *)sums;
    pk_qd8_quantize_run(&rows, pool);
    pk_qd8_product_run(&product, pool);
    pk_f32_cell_run(&step, pool);
}

const char *pk_qd8_cell_kernel(uint32_t isa)
{
    return pk_qd8_product_kernel(isa);
}
