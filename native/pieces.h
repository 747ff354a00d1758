/* Work in units of one size, spread over threads in pieces. A file that includes this has defined
 * PK_KERNELS, the type of its kernels for an instruction set, and `kernels_for(isa)`. */
#include "core.h"

/* The least number of operations that is worth a thread's while. */
#define PIECE 16384

/* `count` units of `size` operations each, in pieces. */
struct pieces {
    const void *task;
    const PK_KERNELS *kernels;
    size_t count, pieces;
};

PK_INLINE struct pieces pieces_of(const void *task, uint32_t isa, size_t count, size_t size,
                                  const struct pk_pool *pool)
{
    struct pieces p = {task, kernels_for(isa), count, 1};
    const size_t threads = pk_threads(pool);
    if (threads > 1)
        p.pieces = pk_max(pk_min(pk_min(count * size / PIECE, threads * 2), count), 1);
    return p;
}

/* The first unit of a piece. */
PK_INLINE size_t piece_begin(const struct pieces *p, size_t index)
{
    return p->count * index / p->pieces;
}

/* The functions of a family: `units` of `work` operations each, by the kernel `does`. */
#define PK_SPREAD(what, does, units, work)                                                         \
    static void run_##what(void *context, size_t index)                                            \
    {                                                                                              \
        const struct pieces *p = context;                                                          \
        p->kernels->does(p->task, piece_begin(p, index), piece_begin(p, index + 1));               \
    }                                                                                              \
    void pk_f32_##what##_run(const struct pk_f32_##what##_task *task, const struct pk_pool *pool)  \
    {                                                                                              \
        struct pieces p = pieces_of(task, task->isa, units, work, pool);                           \
        pk_parallelize(pool, run_##what, &p, p.pieces);                                            \
    }                                                                                              \
    const char *pk_f32_##what##_kernel(uint32_t isa)                                               \
    {                                                                                              \
        return kernels_for(isa)->name;                                                             \
    }
