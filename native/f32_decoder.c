/* The layers of decoders between their products: what needs no vectors of its own, and spreading over
 * threads. */
#include "f32_decoder.h"

#include <string.h>

/* Floats of scores that a tile has at most, unless one token has more. */
#define SCORES 49152
#define TOKENS 16

static const struct pk_f32_decoder_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_decoder_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_decoder_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_decoder_neon;
#endif
    (void)isa;
    return &pk_f32_decoder_scalar;
}

#define PK_KERNELS struct pk_f32_decoder_kernels
#include "pieces.h"

PK_SPREAD(norm, norm, task->rows, task->channels)
PK_SPREAD(gate, gate, task->count, 4)

static void turn(float *restrict to, const float *restrict x, const float *restrict cosine,
                 const float *restrict sine, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        to[i] = x[i] * cosine[i] + x[half + i] * sine[i];
        to[half + i] = x[half + i] * cosine[half + i] + x[i] * sine[half + i];
    }
}

static void run_turn(void *context, size_t index)
{
    const struct pieces *p = context;
    const struct pk_f32_turn_task *t = p->task;
    const size_t size = 2 * t->half;
    for (size_t r = piece_begin(p, index); r < piece_begin(p, index + 1); r++)
        for (size_t h = 0; h < t->heads; h++) {
            const size_t place = (r * t->heads + h) * size;
            turn(t->output + place, t->input + place, t->cosine + r * size, t->sine + r * size,
                 t->half);
        }
}

void pk_f32_turn_run(const struct pk_f32_turn_task *task, const struct pk_pool *pool)
{
    struct pieces p = pieces_of(task, 0, task->rows, 2 * task->half * task->heads, pool);
    pk_parallelize(pool, run_turn, &p, p.pieces);
}

void pk_f32_heads_run(const struct pk_f32_heads_task *task, const struct pk_pool *pool)
{
    (void)pool;
    const size_t size = task->size;
    for (size_t h = 0; h < task->heads; h++)
        for (size_t r = 0; r < task->rows; r++)
            memcpy((char *)task->output + (h * task->rows + r) * size,
                   (const char *)task->input + (r * task->heads + h) * size, size);
}

size_t pk_f32_tile_tokens(const struct pk_f32_attention_task *task)
{
    const size_t columns = pk_round_up(task->old, PK_F32_LANES) + pk_round_up(task->tokens, PK_F32_LANES);
    const size_t tokens = pk_max(SCORES / (columns * task->group), 1);
    return pk_min(pk_min(tokens, TOKENS), task->tokens);
}

/* Of a tile: blocks of columns, a panel of keys, those keys as floats, and for each query its scores,
 * the greatest of them, and a factor. */
size_t pk_f32_tile_scratch(const struct pk_f32_attention_task *task)
{
    const size_t rows = pk_f32_tile_tokens(task) * task->group;
    const size_t blocks = pk_divide_up(task->old, 4) + pk_divide_up(task->tokens, 4);
    const size_t columns = pk_round_up(task->old, PK_F32_LANES) + pk_round_up(task->tokens, PK_F32_LANES);
    const size_t floats = 2 * PK_F32_LANES * task->size + rows * (columns + PK_F32_LANES + 1);
    return pk_round_up(blocks * sizeof(struct pk_f32_columns), PK_ALIGNMENT) +
           pk_round_up(floats * sizeof(float), PK_ALIGNMENT) + 2 * PK_ALIGNMENT;
}

size_t pk_f32_attention_scratch_size(const struct pk_f32_attention_task *task)
{
    return pk_f32_tile_scratch(task) * task->threads;
}

struct attention {
    const struct pk_f32_attention_task *task;
    const struct pk_f32_decoder_kernels *kernels;
    size_t step, tiles, workers, scratch;
};

/* Later tokens see more: each worker takes every so many'th tile. */
static void run_attention(void *context, size_t index)
{
    const struct attention *a = context;
    const struct pk_f32_attention_task *task = a->task;
    for (size_t i = index; i < a->tiles; i += a->workers) {
        const size_t first = i / task->key_heads * a->step;
        const struct pk_f32_tile tile = {
            task, i % task->key_heads, first, pk_min(a->step, task->tokens - first),
            (char *)task->scratch + index * a->scratch,
        };
        a->kernels->attend(&tile);
    }
}

void pk_f32_attention_run(const struct pk_f32_attention_task *task, const struct pk_pool *pool)
{
    struct attention a = {.task = task, .kernels = kernels_for(task->isa)};
    a.step = pk_f32_tile_tokens(task);
    a.tiles = task->key_heads * pk_divide_up(task->tokens, a.step);
    a.workers = pk_max(pk_min(task->threads, a.tiles), 1);
    a.scratch = pk_f32_tile_scratch(task);
    pk_parallelize(pool, run_attention, &a, a.workers);
}

const char *pk_f32_turn_kernel(uint32_t isa)
{
    (void)isa;
    return "scalar";
}

const char *pk_f32_heads_kernel(uint32_t isa)
{
    (void)isa;
    return "scalar";
}

const char *pk_f32_attention_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
