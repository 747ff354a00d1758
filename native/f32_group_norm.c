/* Group norms of fp32 images: strips, and what their parts amount to. See f32_group_norm.h. */
#include "f32_group_norm.h"

static const struct pk_f32_group_norm_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_group_norm_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_group_norm_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_group_norm_neon;
#endif
    (void)isa;
    return &pk_f32_group_norm_scalar;
}

const char *pk_f32_group_norm_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}

/* Of each strip of an image the means and sums of squares of its channels; then of each image what is
 * subtracted and what is multiplied with. */
struct norm {
    const struct pk_f32_group_norm_task *task;
    const struct pk_f32_group_norm_kernels *kernels;
    size_t strips;
    float *images;
};

static size_t strips_of(const struct pk_f32_group_norm_task *task)
{
    const size_t floats = task->places * task->channels;
    return pk_max(pk_min(pk_min(floats / PK_F32_GROUP_NORM_FLOATS, PK_F32_GROUP_NORM_STRIPS),
                         task->places),
                  1);
}

size_t pk_f32_group_norm_scratch_size(const struct pk_f32_group_norm_task *task)
{
    return task->images * (strips_of(task) + 1) * 2 * task->channels * sizeof(float);
}

static size_t strip_begin(const struct norm *norm, size_t strip)
{
    return norm->task->places * strip / norm->strips;
}

static void measure_strip(void *context, size_t index)
{
    const struct norm *norm = context;
    const struct pk_f32_group_norm_task *task = norm->task;
    const size_t image = index / norm->strips, strip = index % norm->strips;
    const size_t begin = strip_begin(norm, strip), end = strip_begin(norm, strip + 1);
    float *mean = task->scratch + index * 2 * task->channels;
    norm->kernels->measure(task->input + (image * task->places + begin) * task->channels, end - begin,
                           task->channels, mean, mean + task->channels);
}

static void apply_strip(void *context, size_t index)
{
    const struct norm *norm = context;
    const struct pk_f32_group_norm_task *task = norm->task;
    const size_t image = index / norm->strips, strip = index % norm->strips;
    const size_t begin = strip_begin(norm, strip), end = strip_begin(norm, strip + 1);
    const size_t first = (image * task->places + begin) * task->channels;
    const float *mean = norm->images + image * 2 * task->channels;
    norm->kernels->apply(task, task->input + first, task->output + first, end - begin, mean,
                         mean + task->channels);
}

/* The mean and the sum of squared differences of a channel and a strip, added to those of `before`
 * elements. */
static void put_together(float *mean, float *squares, float before, float other, float far, float count)
{
    const float part = count / (before + count), apart = other - *mean;
    *squares += far + apart * apart * (before * part);
    *mean += apart * part;
}

static void settle_image(const struct norm *norm, size_t image)
{
    const struct pk_f32_group_norm_task *task = norm->task;
    const size_t channels = task->channels, size = channels / task->groups;
    const float *strips = task->scratch + image * norm->strips * 2 * channels;
    float *mean = norm->images + image * 2 * channels, *factor = mean + channels;
    for (size_t first = 0; first < channels; first += size) {
        float centre = 0, squares = 0, before = 0;
        for (size_t s = 0; s < norm->strips; s++) {
            const float count = (float)(strip_begin(norm, s + 1) - strip_begin(norm, s));
            const float *means = strips + s * 2 * channels;
            for (size_t c = first; c < first + size; c++, before += count)
                put_together(&centre, &squares, before, means[c], means[channels + c], count);
        }
        const float deviation = __builtin_sqrtf(squares / before + task->epsilon);
        for (size_t c = first; c < first + size; c++) {
            mean[c] = centre;
            factor[c] = task->scale[c] / deviation;
        }
    }
}

void pk_f32_group_norm_run(const struct pk_f32_group_norm_task *task, const struct pk_pool *pool)
{
    struct norm norm = {task, kernels_for(task->isa), strips_of(task), NULL};
    norm.images = task->scratch + task->images * norm.strips * 2 * task->channels;
    const size_t units = task->images * norm.strips;
    pk_parallelize(pool, measure_strip, &norm, units);
    for (size_t image = 0; image < task->images; image++)
        settle_image(&norm, image);
    pk_parallelize(pool, apply_strip, &norm, units);
}
