/* Products some of whose channels have weights of 6 bits. See qd8_split.h. */
#include "qd8_split.h"

static void run_outer(const struct pk_qd8_split_task *split, const struct pk_qd8_product_task *part,
                      float *output, const struct pk_pool *pool)
{
    struct pk_qd8_product_task task = *part;
    if (!task.product.outputs)
        return;
    task.input = split->input;
    task.output = output;
    task.scratch = split->scratch;
    pk_qd8_product_run(&task, pool);
}

void pk_qd8_split_run(const struct pk_qd8_split_task *task, const struct pk_pool *pool)
{
    struct pk_qd8_int4_task middle = task->middle;
    float *const output = task->output + task->before.product.outputs;
    run_outer(task, &task->before, task->output, pool);
    middle.input = task->input;
    middle.output = output;
    middle.scratch = task->scratch;
    pk_qd8_int4_run(&middle, pool);
    run_outer(task, &task->behind, output + middle.product.outputs, pool);
}
