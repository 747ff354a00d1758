/* Bytes through a table. See lut8.h. */
#include "lut8.h"

#define CHUNK ((size_t)32 << 10)

void pk_lut8_scalar(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table)
{
    for (size_t i = 0; i < count; i++)
        to[i] = table[from[i]];
}

static pk_lut8_kernel_function kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VBMI)
        return pk_lut8_avx512vbmi;
    if (isa & PK_ISA_AVX2)
        return pk_lut8_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return pk_lut8_neon;
#endif
    (void)isa;
    return pk_lut8_scalar;
}

static void chunk_task(void *context, size_t index)
{
    const struct pk_lut8_task *task = context;
    const size_t begin = index * CHUNK, count = pk_min(CHUNK, task->lut.count - begin);
    kernel_for(task->lut.isa)(task->output + begin, task->input + begin, count, task->table);
}

void pk_lut8_run(const struct pk_lut8_task *task, const struct pk_pool *pool)
{
    if (task->lut.threads == 1 || task->lut.count <= CHUNK) {
        kernel_for(task->lut.isa)(task->output, task->input, task->lut.count, task->table);
        return;
    }
    pk_parallelize(pool, chunk_task, (void *)task, pk_divide_up(task->lut.count, CHUNK));
}

const char *pk_lut8_kernel(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VBMI)
        return "avx512vbmi";
    if (isa & PK_ISA_AVX2)
        return "avx2";
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return "neon";
#endif
    (void)isa;
    return "scalar";
}
