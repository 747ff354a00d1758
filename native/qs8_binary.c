/* Sums and products of int8 tensors: the walk over their dimensions, and plain C. See qs8_binary.h. */
#include "qs8_binary.h"

#include "qd8_rows.h"

#define CHUNK ((size_t)16 << 10)
#define INNER (PK_BINARY_DIMS - 1)

void pk_qs8_binary_scalar(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                          size_t a_step, size_t b_step, size_t count, int8_t *output)
{
    for (size_t i = 0; i < count; i++, a += a_step, b += b_step) {
        int32_t q;
        if (p->product) {
            const float x = (float)((*a - p->a_zero_point) * (*b - p->b_zero_point)) * p->scale;
            const float most = (float)(p->max - p->zero_point);
            const float least = (float)(p->min - p->zero_point);
            q = pk_qd8_rounded(x < least ? least : x > most ? most : x) + p->zero_point;
        } else {
            const int32_t sum = p->bias + *a * p->a_multiplier + *b * p->b_multiplier;
            q = (sum >> p->shift) + p->zero_point;
        }
        q = q < p->min ? p->min : q;
        output[i] = (int8_t)(q > p->max ? p->max : q);
    }
}

static pk_qs8_binary_line line_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return pk_qs8_binary_avx512;
    if (isa & PK_ISA_AVX2)
        return pk_qs8_binary_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return pk_qs8_binary_neon;
#endif
    (void)isa;
    return pk_qs8_binary_scalar;
}

struct work {
    const struct pk_qs8_binary_task *task;
    pk_qs8_binary_line line;
    size_t lines, pieces; /* of the innermost dimension, of a line */
    size_t chunks;
};

static void chunk_task(void *context, size_t index)
{
    const struct work *w = context;
    const struct pk_qs8_binary_task *t = w->task;
    const size_t inner = t->size[INNER], all = w->lines * w->pieces;
    for (size_t at = all * index / w->chunks; at < all * (index + 1) / w->chunks; at++) {
        const size_t line = at / w->pieces, first = at % w->pieces * CHUNK;
        const size_t count = pk_min(inner - first, CHUNK);
        size_t a = first * t->a_step[INNER], b = first * t->b_step[INNER];
        for (size_t d = INNER, rest = line; d-- > 0; rest /= t->size[d]) {
            a += rest % t->size[d] * t->a_step[d];
            b += rest % t->size[d] * t->b_step[d];
        }
        w->line(&t->params, t->a + a, t->b + b, t->a_step[INNER], t->b_step[INNER], count,
                t->output + line * inner + first);
    }
}

void pk_qs8_binary_run(const struct pk_qs8_binary_task *task, const struct pk_pool *pool)
{
    struct work w = {.task = task, .line = line_for(task->isa), .lines = 1};
    for (size_t d = 0; d < INNER; d++)
        w.lines *= task->size[d];
    w.pieces = pk_divide_up(task->size[INNER], CHUNK);
    const size_t bytes = w.lines * task->size[INNER];
    w.chunks = task->threads > 1 ? pk_min(w.lines * w.pieces, pk_divide_up(bytes, CHUNK)) : 1;
    pk_parallelize(w.chunks > 1 ? pool : NULL, chunk_task, &w, w.chunks);
}

const char *pk_qs8_binary_kernel(uint32_t isa)
{
    if (isa & PK_ISA_NEON)
        return "neon";
    return isa & PK_ISA_AVX512 ? "avx512" : isa & PK_ISA_AVX2 ? "avx2" : "scalar";
}
