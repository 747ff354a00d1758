/* Sums and products of two fp32 tensors: spreading over threads. */
#include "f32_add.h"

/* The least number of elements that is worth a thread's while. */
#define PIECE 16384

static const struct pk_f32_add_kernel *kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_add_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_add_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_add_neon;
#endif
    (void)isa;
    return &pk_f32_add_scalar;
}

PK_EXPORT const char *pk_f32_add_kernel(uint32_t isa)
{
    return kernel_for(isa)->name;
}

struct plan {
    const struct pk_f32_add_task *task;
    const struct pk_f32_add_kernel *kernel;
    size_t pieces;
};

/* Pieces begin at whole cache lines. */
static size_t piece_begin(const struct plan *plan, size_t index)
{
    const size_t lines = pk_divide_up(plan->task->count, 16);
    return pk_min(index * lines / plan->pieces * 16, plan->task->count);
}

static void run_piece(void *context, size_t index)
{
    const struct plan *plan = context;
    plan->kernel->run(plan->task, piece_begin(plan, index), piece_begin(plan, index + 1));
}

/* Each element by its place. */
static void run_broadcast(const struct pk_f32_add_task *task)
{
    for (size_t i = 0; i < task->count; i++) {
        size_t rest = i, a = 0, b = 0;
        for (size_t d = PK_F32_ADD_DIMENSIONS; d-- > 0; rest /= task->shape[d]) {
            a += rest % task->shape[d] * task->a_steps[d];
            b += rest % task->shape[d] * task->b_steps[d];
        }
        task->output[i] =
            pk_f32_add_one(task->a[a], task->b[b], task->min, task->max, task->multiply != 0);
    }
}

PK_EXPORT void pk_f32_add_run(const struct pk_f32_add_task *task, const struct pk_pool *pool)
{
    if (task->broadcast) {
        run_broadcast(task);
        return;
    }
    struct plan plan = {task, kernel_for(task->isa), 1};
    const size_t threads = pk_threads(pool);
    if (threads > 1)
        plan.pieces = pk_max(pk_min(task->count / PIECE, threads * 4), 1);
    pk_parallelize(pool, run_piece, &plan, plan.pieces);
}
