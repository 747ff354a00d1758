/* Sums of two fp32 tensors: the loop for neon. */
#include "f32_add.h"

static void run(const struct pk_f32_add_task *task, size_t begin, size_t end)
{
    pk_f32_add_elements(task, begin, end);
}

const struct pk_f32_add_kernel pk_f32_add_neon = {"neon", run};
