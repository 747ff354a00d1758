/* Steps of recurrent layers: which kernels run. See f32_cell.h. */
#include "f32_cell.h"

static const struct pk_f32_cell_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_cell_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_cell_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_cell_neon;
#endif
    (void)isa;
    return &pk_f32_cell_scalar;
}

size_t pk_f32_cell_scratch_size(const struct pk_f32_cell_task *task)
{
    return PK_F32_CELL_ROWS * pk_f32_cell_gates(task) * sizeof(float);
}

void pk_f32_cell_run(const struct pk_f32_cell_task *task, const struct pk_pool *pool)
{
    (void)pool;
    kernels_for(task->isa)->cell(task);
}

const char *pk_f32_cell_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
