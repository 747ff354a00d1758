/* Runs the plan of a whole delegate in one call: kernels of ours and runtimes of XNNPACK's. */
#include "core.h"

#if PK_X86
#include <xmmintrin.h>
#define DENORMALS_ARE_ZEROS 0x8040
#elif PK_ARM
#define DENORMALS_ARE_ZEROS 0x1080000 /* of fp32 and of fp16 */
#else
#define DENORMALS_ARE_ZEROS 0
#endif

/* The register that says how a thread computes. */
static uint64_t float_mode(void)
{
    uint64_t mode = 0;
#if PK_X86
    mode = _mm_getcsr();
#elif PK_ARM
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
#endif
    return mode;
}

static void set_float_mode(uint64_t mode)
{
#if PK_X86
    _mm_setcsr((uint32_t)mode);
#elif PK_ARM
    __asm__ volatile("msr fpcr, %0" ::"r"(mode));
#else
    (void)mode;
#endif
}

/* `status` is where the task leaves a code other than 0 if it fails, NULL if it cannot. */
struct pk_step {
    void (*run)(void *task, const struct pk_pool *pool);
    void *task;
    const int *status;
};

/* A pointer in a task that holds the address of input or output number `port`. */
struct pk_patch {
    void **field;
    size_t port;
};

struct pk_plan {
    const struct pk_step *steps;
    size_t step_count;
    const struct pk_patch *patches;
    size_t patch_count;
    struct pk_pool pool;
};

/* `xnn_external_value`. */
struct pk_external {
    uint32_t id;
    void *data;
};

/* A runtime of XNNPACK's: its functions, its values, and where they were at the last call. */
struct pk_xnnpack_task {
    int (*setup)(void *runtime, size_t count, const struct pk_external *externals);
    int (*invoke)(void *runtime);
    void *runtime;
    size_t count;
    struct pk_external *externals;
    void **placed;
    int status;
};

PK_EXPORT void pk_xnnpack_run(void *argument, const struct pk_pool *pool)
{
    struct pk_xnnpack_task *task = argument;
    (void)pool;
    int moved = 0;
    for (size_t i = 0; i < task->count; i++)
        moved |= task->externals[i].data != task->placed[i];
    if (moved) {
        task->placed[0] = NULL; /* not placed, should this fail */
        task->status = task->setup(task->runtime, task->count, task->externals);
        if (task->status)
            return;
        for (size_t i = 0; i < task->count; i++)
            task->placed[i] = task->externals[i].data;
    }
    task->status = task->invoke(task->runtime);
}

/* Runs the steps in order; returns the first code other than 0 that one of them leaves. */
PK_EXPORT int pk_plan_run(const struct pk_plan *plan, void *const *ports)
{
    for (size_t i = 0; i < plan->patch_count; i++)
        *plan->patches[i].field = ports[plan->patches[i].port];
    /* Denormals count as zeros, as on the threads of the pool. */
    const uint64_t mode = float_mode();
    set_float_mode(mode | DENORMALS_ARE_ZEROS);
    int status = 0;
    for (size_t i = 0; i < plan->step_count && !status; i++) {
        plan->steps[i].run(plan->steps[i].task, &plan->pool);
        status = plan->steps[i].status ? *plan->steps[i].status : 0;
    }
    set_float_mode(mode);
    return status;
}
