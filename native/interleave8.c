/* Planes of bytes to pixels. See interleave8.h. */
#include "interleave8.h"

#define CHUNK ((size_t)8 << 10) /* pixels */

static void chunk_task(void *context, size_t index)
{
    const struct pk_interleave8_task *task = context;
    const struct pk_interleave8 *s = &task->interleave;
    const size_t chunks = pk_divide_up(s->pixels, CHUNK);
    const size_t image = index / chunks, first = index % chunks * CHUNK;
    const size_t count = pk_min(CHUNK, s->pixels - first), planes = s->planes;
    const uint8_t *const from = task->input + image * planes * s->pixels + first;
    uint8_t *const to = task->output + (image * s->pixels + first) * planes;
    size_t i = 0;
#if PK_X86
    if (planes == 3 && s->isa & PK_ISA_AVX2)
        i = pk_interleave8_three_avx2(to, from, s->pixels, count);
#elif PK_ARM
    if (planes == 3 && s->isa & PK_ISA_NEON)
        i = pk_interleave8_three_neon(to, from, s->pixels, count);
#endif
    for (; i < count; i++)
        for (size_t p = 0; p < planes; p++)
            to[i * planes + p] = from[p * s->pixels + i];
}

void pk_interleave8_run(const struct pk_interleave8_task *task, const struct pk_pool *pool)
{
    const struct pk_interleave8 *s = &task->interleave;
    pk_parallelize(s->threads > 1 ? pool : NULL, chunk_task, (void *)task,
                   s->batch * pk_divide_up(s->pixels, CHUNK));
}

const char *pk_interleave8_kernel(uint32_t isa)
{
    return isa & PK_ISA_AVX2 ? "avx2" : isa & PK_ISA_NEON ? "neon" : "scalar";
}
