/* Means over the pixels of fp32 images, for vectors of PK_LANES floats by the compiler's vector types.
 * The file that includes this defines PK_LANES. */
#include "f32_mean.h"
#include "f32_vectors.h"

/* Some vectors of channels of an image. */
PK_INLINE void mean_of(const struct pk_f32_mean_task *task, const float *input, float *output,
                       const size_t vectors)
{
    const size_t pixels = task->pixels;
    vec total[4] = {{0}};
    for (size_t block = 0; block < pixels; block += PK_F32_MEAN_BLOCK) {
        vec sum[4] = {{0}};
        for (size_t p = block; p < pk_min(block + PK_F32_MEAN_BLOCK, pixels); p++)
            for (size_t v = 0; v < vectors; v++)
                sum[v] += at(input + p * task->channels + v * PK_LANES);
        for (size_t v = 0; v < vectors; v++)
            total[v] += sum[v];
    }
    for (size_t v = 0; v < vectors; v++) {
        vec y = total[v] * (1.0f / (float)pixels);
        y = chosen(y < all(task->min), all(task->min), y);
        *(vec *)(output + v * PK_LANES) = chosen(y > all(task->max), all(task->max), y);
    }
}

static void mean_of_one(const struct pk_f32_mean_task *task, const float *input, float *output)
{
    float total = 0;
    for (size_t block = 0; block < task->pixels; block += PK_F32_MEAN_BLOCK) {
        float sum = 0;
        for (size_t p = block; p < pk_min(block + PK_F32_MEAN_BLOCK, task->pixels); p++)
            sum += input[p * task->channels];
        total += sum;
    }
    float y = total * (1.0f / (float)task->pixels);
    y = y < task->min ? task->min : y;
    *output = y > task->max ? task->max : y;
}

static void mean(const struct pk_f32_mean_task *task, size_t begin, size_t end)
{
    const size_t groups = pk_divide_up(task->channels, PK_F32_MEAN_CHANNELS);
    for (size_t unit = begin; unit < end; unit++) {
        const size_t image = unit / groups, first = unit % groups * PK_F32_MEAN_CHANNELS;
        const size_t last = pk_min(first + PK_F32_MEAN_CHANNELS, task->channels);
        const float *input = task->input + image * task->pixels * task->channels;
        float *output = task->output + image * task->channels;
        size_t c = first;
        for (; c + 4 * PK_LANES <= last; c += 4 * PK_LANES)
            mean_of(task, input + c, output + c, 4);
        for (; c + PK_LANES <= last; c += PK_LANES)
            mean_of(task, input + c, output + c, 1);
        for (; c < last; c++)
            mean_of_one(task, input + c, output + c);
    }
}
