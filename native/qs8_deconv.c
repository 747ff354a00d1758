/* See qs8_deconv.h. */
#include "qs8_deconv.h"

void pk_qs8_deconv_run(const struct pk_qs8_deconv_task *task, const struct pk_pool *pool)
{
    for (size_t i = 0; i < task->count; i++) {
        const struct pk_qs8_deconv_phase *phase = &task->phases[i];
        const struct pk_qs8_conv_task conv = {
            .conv = phase->conv, .packed = phase->packed, .input = task->input,
            .output = task->output + phase->offset, .scratch = task->scratch,
        };
        pk_qs8_conv_run(&conv, pool);
    }
}

const char *pk_qs8_deconv_kernel(uint32_t isa)
{
    return pk_qs8_conv_kernel(isa);
}
