/* Group norms, for vectors of PK_LANES floats by the compiler's vector types. The file that includes
 * this defines PK_LANES. See f32_group_norm.h. */
#include "f32_group_norm.h"
#include "f32_vectors.h"

/* Some vectors of channels of a block of `count` places, put together with the `before` places that
 * were measured. */
PK_INLINE void measure_block(const float *input, size_t count, size_t channels, size_t before,
                             float *mean, float *squares, const size_t vectors)
{
    vec sum[4] = {{0}}, far[4] = {{0}};
    for (size_t p = 0; p < count; p++)
        for (size_t v = 0; v < vectors; v++)
            sum[v] += at(input + p * channels + v * PK_LANES);
    for (size_t v = 0; v < vectors; v++)
        sum[v] *= 1.0f / (float)count;
    for (size_t p = 0; p < count; p++)
        for (size_t v = 0; v < vectors; v++) {
            const vec x = at(input + p * channels + v * PK_LANES) - sum[v];
            far[v] += x * x;
        }
    const float all_places = (float)(before + count), part = (float)count / all_places;
    for (size_t v = 0; v < vectors; v++) {
        vec *const m = (vec *)(mean + v * PK_LANES), *const s = (vec *)(squares + v * PK_LANES);
        const vec apart = sum[v] - *m;
        *s += far[v] + apart * apart * ((float)before * part);
        *m += apart * part;
    }
}

static void measure_one(const float *input, size_t count, size_t channels, size_t before, float *mean,
                        float *squares)
{
    float sum = 0, far = 0;
    for (size_t p = 0; p < count; p++)
        sum += input[p * channels];
    sum *= 1.0f / (float)count;
    for (size_t p = 0; p < count; p++)
        far += (input[p * channels] - sum) * (input[p * channels] - sum);
    const float part = (float)count / (float)(before + count), apart = sum - *mean;
    *squares += far + apart * apart * ((float)before * part);
    *mean += apart * part;
}

static void measure(const float *input, size_t count, size_t channels, float *mean, float *squares)
{
    const size_t block = pk_max(PK_F32_GROUP_NORM_FLOATS / channels, 1);
    for (size_t c = 0; c < channels; c++)
        mean[c] = squares[c] = 0;
    for (size_t p = 0; p < count; p += block) {
        const size_t places = pk_min(block, count - p);
        const float *from = input + p * channels;
        size_t c = 0;
        for (; c + 4 * PK_LANES <= channels; c += 4 * PK_LANES)
            measure_block(from + c, places, channels, p, mean + c, squares + c, 4);
        for (; c + PK_LANES <= channels; c += PK_LANES)
            measure_block(from + c, places, channels, p, mean + c, squares + c, 1);
        for (; c < channels; c++)
            measure_one(from + c, places, channels, p, mean + c, squares + c);
    }
}

static void apply(const struct pk_f32_group_norm_task *task, const float *input, float *output,
                  size_t count, const float *mean, const float *factor)
{
    const size_t channels = task->channels;
    const float *shift = task->shift, min = task->min, max = task->max;
    for (size_t p = 0; p < count; p++, input += channels, output += channels) {
        size_t c = 0;
        for (; c + PK_LANES <= channels; c += PK_LANES) {
            vec y = (at(input + c) - at(mean + c)) * at(factor + c) + at(shift + c);
            y = chosen(y < all(min), all(min), y);
            *(vec *)(output + c) = chosen(y > all(max), all(max), y);
        }
        for (; c < channels; c++) {
            float y = (input[c] - mean[c]) * factor[c] + shift[c];
            y = y < min ? min : y;
            output[c] = y > max ? max : y;
        }
    }
}
