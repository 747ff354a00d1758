/* See f32_deconv.h. */
#include "f32_deconv.h"

void pk_f32_deconv_run(const struct pk_f32_deconv_task *task, const struct pk_pool *pool)
{
    for (size_t i = 0; i < task->count; i++) {
        struct pk_f32_igemm_task phase = task->phases[i].task;
        phase.input = task->input;
        phase.output = task->output + task->phases[i].offset;
        pk_f32_igemm_run(&phase, pool);
    }
}

const char *pk_f32_deconv_kernel(uint32_t isa)
{
    return pk_f32_igemm_kernel_for(isa)->name;
}
