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
    const pk_f32_dwconv_tile_function *tiles; /* NULL: runs of whatever filter */
    size_t rows;                              /* of all images */
    size_t pieces;                            /* of work, some rows each */
};

/* Taps `first` to `end` of `size`, `dilation` apart, lie in an image of `length` where tap 0 would be
 * at `place`, which wraps around below 0. */
static void taps_within(size_t place, size_t length, size_t size, size_t dilation, size_t *first,
                        size_t *end)
{
    const ptrdiff_t at = (ptrdiff_t)place, last = at + (ptrdiff_t)((size - 1) * dilation);
    *first = at < 0 ? pk_min(pk_divide_up((size_t)-at, dilation), size) : 0;
    *end = size;
    if (last >= (ptrdiff_t)length)
        *end = at < (ptrdiff_t)length ? (length - 1 - place) / dilation + 1 : 0;
    *end = pk_max(*end, *first);
}

/* One row of the output, in runs of pixels that have the same taps. */
static void run_any_row(const struct plan *plan, size_t image, size_t oy)
{
    const struct pk_f32_dwconv_task *task = plan->task;
    const struct pk_f32_dwconv_shape *shape = &task->shape;
    const size_t width = task->output_width, channels = shape->channels;
    const size_t y = oy * task->stride_height - task->padding_top;
    struct pk_f32_dwconv_run run;
    size_t end_row, end_column, next_first, next_end;
    taps_within(y, task->input_height, shape->kernel_height, task->dilation_height, &run.first_row,
                &end_row);
    run.channels = channels;
    run.kernel_height = shape->kernel_height;
    run.kernel_width = shape->kernel_width;
    run.weights = task->packed;
    run.input_row = task->dilation_height * task->input_width * channels;
    run.input_column = task->dilation_width * channels;
    run.input_pixel = task->stride_width * channels;
    run.output_pixel = channels;
    run.min = task->min;
    run.max = task->max;
    const size_t iy = image * task->input_height + y + run.first_row * task->dilation_height;
    float *const output = task->output + (image * task->output_height + oy) * width * channels;
    for (size_t ox = 0, end; ox < width; ox = end) {
        const size_t x = ox * task->stride_width - task->padding_left;
        taps_within(x, task->input_width, shape->kernel_width, task->dilation_width,
                    &run.first_column, &end_column);
        for (end = ox + 1; end < width; end++) {
            taps_within(end * task->stride_width - task->padding_left, task->input_width,
                        shape->kernel_width, task->dilation_width, &next_first, &next_end);
            if (next_first != run.first_column || next_end != end_column)
                break;
        }
        run.pixels = end - ox;
        run.columns = end_column - run.first_column;
        run.rows = run.columns ? end_row - run.first_row : 0;
        run.input = task->input;
        if (run.rows)
            run.input += (iy * task->input_width + x + run.first_column * task->dilation_width) *
                         channels;
        run.output = output + ox * channels;
        plan->kernel->run(&run);
    }
}

/* One row of the output in tiles of nearly equal width. */
static void run_row(const struct plan *plan, size_t image, size_t oy)
{
    const struct pk_f32_dwconv_task *task = plan->task;
    const struct pk_f32_dwconv_shape *shape = &task->shape;
    const size_t width = task->output_width, channels = shape->channels;
    if (!plan->tiles) {
        run_any_row(plan, image, oy);
        return;
    }
    const size_t y = oy * task->stride_height - task->padding_top;
    struct pk_f32_dwconv_tile tile;
    size_t end;
    taps_within(y, task->input_height, shape->kernel_height, 1, &tile.first, &end);
    tile.channels = channels;
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
                      task->dilation_height == 1 && task->dilation_width == 1;
    plan.tiles = small ? plan.kernel->row(task->shape.kernel_width, task->stride_width) : NULL;
    const size_t threads = pk_threads(pool);
    plan.pieces = threads == 1 ? 1 : pk_min(plan.rows, threads * 4);
    pk_parallelize(pool, run_piece, &plan, plan.pieces);
}
