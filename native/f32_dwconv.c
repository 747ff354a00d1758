/* Depthwise convolution in fp32: packing of weights, tiles and borders, spreading over threads. */
#include "f32_dwconv.h"

static const struct pk_f32_dwconv_kernel *kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_dwconv_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_dwconv_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_dwconv_neon;
#endif
    (void)isa;
    return &pk_f32_dwconv_scalar;
}

PK_EXPORT const char *pk_f32_dwconv_kernel(uint32_t isa)
{
    return kernel_for(isa)->name;
}

PK_EXPORT size_t pk_f32_dwconv_packed_size(const struct pk_f32_dwconv_shape *shape)
{
    const size_t taps = shape->kernel_height * shape->kernel_width;
    const size_t channels = pk_round_up(shape->channels, kernel_for(shape->isa)->width);
    return channels * (taps + 1) * sizeof(float);
}

/* Weights are [kernel_height][kernel_width][channels]; `bias` may be NULL. */
PK_EXPORT void pk_f32_dwconv_pack(const struct pk_f32_dwconv_shape *shape, const float *weights,
                                  const float *bias, float *packed)
{
    const size_t width = kernel_for(shape->isa)->width;
    const size_t taps = shape->kernel_height * shape->kernel_width;
    for (size_t c = 0; c < shape->channels; c += width) {
        const size_t count = pk_min(shape->channels - c, width);
        for (size_t i = 0; i < width; i++)
            *packed++ = bias && i < count ? bias[c + i] : 0.0f;
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < width; i++)
                *packed++ = i < count ? weights[t * shape->channels + c + i] : 0.0f;
    }
}

struct plan {
    const struct pk_f32_dwconv_task *task;
    const struct pk_f32_dwconv_kernel *kernel;
    const pk_f32_dwconv_tile_function *tiles; /* NULL: pixel by pixel */
    size_t rows;                              /* of all images */
    size_t pieces;                            /* of work, some rows each */
};

/* Taps `first` to `end` of `size`, `dilation` apart, lie in an image of `length` where tap 0 would be
 * at `place`, which wraps around below 0. */
static void taps_within(size_t place, size_t length, size_t size, size_t dilation, size_t *first,
                        size_t *end)
{
    const ptrdiff_t at = (ptrdiff_t)place;
    *first = at < 0 ? pk_min(pk_divide_up((size_t)-at, dilation), size) : 0;
    *end = at < (ptrdiff_t)length ? pk_min((length - 1 - place) / dilation + 1, size) : 0;
    *end = pk_max(*end, *first);
}

static void run_pixel(const struct plan *plan, size_t image, size_t oy, size_t ox, size_t skipped)
{
    const struct pk_f32_dwconv_task *task = plan->task;
    const struct pk_f32_dwconv_shape *shape = &task->shape;
    const size_t channels = shape->channels, taps = shape->kernel_height * shape->kernel_width;
    const size_t y = oy * task->stride_height - task->padding_top;
    const size_t x = ox * task->stride_width - task->padding_left;
    struct pk_f32_dwconv_pixel pixel;
    size_t end_row, end_column;
    taps_within(y, task->input_height, shape->kernel_height, task->dilation_height,
                &pixel.first_row, &end_row);
    taps_within(x, task->input_width, shape->kernel_width, task->dilation_width,
                &pixel.first_column, &end_column);
    pixel.channels = channels - skipped;
    pixel.rows = end_row - pixel.first_row;
    pixel.columns = end_column - pixel.first_column;
    if (!pixel.columns)
        pixel.rows = 0;
    pixel.kernel_height = shape->kernel_height;
    pixel.kernel_width = shape->kernel_width;
    pixel.weights = (const float *)task->packed + skipped * (taps + 1);
    pixel.input_row = task->dilation_height * task->input_width * channels;
    pixel.input_column = task->dilation_width * channels;
    const size_t iy = y + pixel.first_row * task->dilation_height;
    const size_t ix = x + pixel.first_column * task->dilation_width;
    pixel.input = task->input;
    if (pixel.rows)
        pixel.input += ((image * task->input_height + iy) * task->input_width + ix) * channels;
    pixel.input += skipped;
    pixel.output = task->output + skipped +
                   ((image * task->output_height + oy) * task->output_width + ox) * channels;
    pixel.min = task->min;
    pixel.max = task->max;
    plan->kernel->pixel(&pixel);
}

/* One row of the output in tiles of nearly equal width. */
static void run_row(const struct plan *plan, size_t image, size_t oy)
{
    const struct pk_f32_dwconv_task *task = plan->task;
    const struct pk_f32_dwconv_shape *shape = &task->shape;
    const size_t width = task->output_width, channels = shape->channels;
    if (!plan->tiles) {
        for (size_t ox = 0; ox < width; ox++)
            run_pixel(plan, image, oy, ox, 0);
        return;
    }
    const size_t whole = channels - channels % plan->kernel->width;
    const size_t y = oy * task->stride_height - task->padding_top;
    struct pk_f32_dwconv_tile tile;
    size_t end;
    taps_within(y, task->input_height, shape->kernel_height, 1, &tile.first, &end);
    tile.channels = whole;
    tile.rows = end - tile.first;
    tile.all_rows = shape->kernel_height;
    tile.weights = task->packed;
    tile.output_pixel = channels;
    tile.min = task->min;
    tile.max = task->max;
    const float *rows = task->input + (image * task->input_height + y + tile.first) *
                                          task->input_width * channels;
    float *output = task->output + (image * task->output_height + oy) * width * channels;
    const size_t tiles = pk_divide_up(width, PK_F32_DWCONV_PIXELS);
    for (size_t i = 0; i < tiles; i++) {
        const size_t from = i * width / tiles, pixels = (i + 1) * width / tiles - from;
        const size_t x = from * task->stride_width - task->padding_left;
        const size_t columns = (pixels - 1) * task->stride_width + shape->kernel_width;
        for (size_t r = 0; r < tile.rows; r++) {
            const float *row = rows + r * task->input_width * channels;
            for (size_t c = 0; c < columns; c++) {
                const int inside = x + c < task->input_width;
                tile.inputs[r][c] = inside ? row + (x + c) * channels : task->zero;
            }
        }
        tile.output = output + from * channels;
        plan->tiles[pixels - 1](&tile);
    }
    if (whole < channels)
        for (size_t ox = 0; ox < width; ox++)
            run_pixel(plan, image, oy, ox, whole);
}

static void run_piece(void *context, size_t index)
{
    const struct plan *plan = context;
    const size_t begin = index * plan->rows / plan->pieces;
    const size_t end = (index + 1) * plan->rows / plan->pieces;
    for (size_t row = begin; row < end; row++)
        run_row(plan, row / plan->task->output_height, row % plan->task->output_height);
}

PK_EXPORT void pk_f32_dwconv_run(const struct pk_f32_dwconv_task *task, const struct pk_pool *pool)
{
    struct plan plan;
    plan.task = task;
    plan.kernel = kernel_for(task->shape.isa);
    plan.rows = task->batch * task->output_height;
    if (plan.rows * task->output_width == 0)
        return;
    const int small = task->shape.kernel_height <= PK_F32_DWCONV_SIZE &&
                      task->dilation_height == 1 && task->dilation_width == 1 &&
                      task->shape.channels >= plan.kernel->width;
    plan.tiles = small ? plan.kernel->row(task->shape.kernel_width, task->stride_width) : NULL;
    const size_t threads = pk_threads(pool);
    plan.pieces = threads == 1 ? 1 : pk_min(plan.rows, threads * 4);
    pk_parallelize(pool, run_piece, &plan, plan.pieces);
}
