/* Means over the pixels of int8 images: spreading over threads, and what becomes of the sums. */
#include "qs8_mean.h"

#include <string.h>

/* The least number of bytes of the input that is worth a thread's while. */
#define PIECE 32768

static const struct pk_qs8_mean_kernel *kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_qs8_mean_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_qs8_mean_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_qs8_mean_neon;
#endif
    (void)isa;
    return &pk_qs8_mean_scalar;
}

PK_EXPORT const char *pk_qs8_mean_kernel(uint32_t isa)
{
    return kernel_for(isa)->name;
}

struct plan {
    const struct pk_qs8_mean_task *task;
    const struct pk_qs8_mean_kernel *kernel;
    size_t splits; /* of the channels of an image, at whole blocks */
};

static size_t split_begin(const struct plan *plan, size_t split)
{
    const size_t blocks = pk_divide_up(plan->task->channels, PK_QS8_MEAN_BLOCK);
    return pk_min(split * blocks / plan->splits * PK_QS8_MEAN_BLOCK, plan->task->channels);
}

/* Of one image the channels `begin` to `end`. */
static void run_channels(const struct plan *plan, size_t image, size_t begin, size_t end)
{
    const struct pk_qs8_mean_task *task = plan->task;
    const int8_t *const input = task->input + image * task->pixels * task->channels;
    int8_t *const output = task->output + image * task->channels;
    for (size_t first = begin; first < end; first += PK_QS8_MEAN_BLOCK) {
        const size_t count = pk_min(PK_QS8_MEAN_BLOCK, end - first);
        int32_t sums[PK_QS8_MEAN_BLOCK] = {0};
        int8_t means[PK_QS8_MEAN_BLOCK];
        plan->kernel->sums(sums, input + first, task->pixels, task->channels, count);
        for (size_t c = 0; c < PK_QS8_MEAN_BLOCK; c++) {
            const float x = (float)sums[c] * task->scale + task->zero_point;
            const float low = x < -128.0f ? -128.0f : x;
            /* The last bits of this sum are the integer, rounded to nearest, ties to even. */
            const union {
                float number;
                int32_t bits;
            } shifted = {(low > 127.0f ? 127.0f : low) + 0x1.8p23f};
            means[c] = (int8_t)shifted.bits;
        }
        memcpy(output + first, means, count);
    }
}

static void run_split(void *context, size_t index)
{
    const struct plan *plan = context;
    const size_t split = index % plan->splits;
    run_channels(plan, index / plan->splits, split_begin(plan, split), split_begin(plan, split + 1));
}

PK_EXPORT void pk_qs8_mean_run(const struct pk_qs8_mean_task *task, const struct pk_pool *pool)
{
    struct plan plan = {task, kernel_for(task->isa), 1};
    const size_t size = task->images * task->pixels * task->channels;
    if (task->threads == 1 || size < 2 * PIECE) {
        for (size_t image = 0; image < task->images; image++)
            run_channels(&plan, image, 0, task->channels);
        return;
    }
    if (task->images < task->threads)
        plan.splits = pk_min(task->threads, pk_divide_up(task->channels, PK_QS8_MEAN_BLOCK));
    pk_parallelize(pool, run_split, &plan, task->images * plan.splits);
}
