/* fp32 products: blocking for caches, spreading over threads. */
#include "f32_igemm.h"
#include "f32_winograd.h"

#include <math.h>

/* The first level of cache: rows that lie a multiple of a way's size apart share lines, of which
 * there is one in each way. */
#define CACHE_WAY 4096
#define CACHE_WAYS 8

/* How the work is cut: blocks of panels whose weights stay in the level 2 cache while rows sweep
 * over them; where one panel alone is too much, it is cut along its depth as well. A block has panels
 * of several groups if those of one are few. */
struct plan {
    const struct pk_f32_igemm_task *task;
    const struct pk_f32_igemm_kernel *kernel;
    struct pk_f32_panels panels;
    size_t rows;                       /* output pixels */
    size_t tile_rows;                  /* the most of a tile */
    size_t block_panels, blocks;       /* panels in a block (of all groups), blocks */
    size_t block_taps, block_channels; /* in one sweep over the rows */
    size_t tiles, strips;              /* tiles of rows in all, strips of tiles */
    size_t line_tiles;                 /* tiles of a line; 0 where they go on in the next */
    int one_to_one;                    /* an output pixel reads the input pixel of its number */
    int rows_of_taps;                  /* the taps of one row of the kernel lie side by side */
};

static struct plan planned(const struct pk_f32_igemm_task *task, size_t threads)
{
    struct plan plan;
    plan.task = task;
    plan.kernel = pk_f32_igemm_kernel_of(&task->shape);
    plan.panels = pk_f32_panels_of(plan.kernel, &task->shape);
    plan.rows = task->batch * task->output_height * task->output_width;
    const size_t cache = task->caches.l2 ? task->caches.l2 : 256 * 1024;
    const size_t line = plan.panels.full_width * sizeof(float);
    const size_t depth = pk_max(cache / 2 / line, 64);
    const size_t channels = task->shape.input_channels, taps = task->shape.taps;
    plan.block_channels = pk_min(channels, depth);
    plan.block_taps = pk_min(pk_min(pk_max(depth / channels, 1), PK_F32_IGEMM_TAPS), taps);
    plan.block_taps = pk_divide_up(taps, pk_divide_up(taps, plan.block_taps));
    plan.one_to_one = taps == 1 && !task->output_line && task->stride_height == 1 && task->stride_width == 1 &&
                      task->padding_top == 0 && task->padding_left == 0 &&
                      task->output_height == task->input_height &&
                      task->output_width == task->input_width;
    plan.rows_of_taps = task->dilation_width == 1 && task->input_pixel == channels &&
                        plan.block_channels == channels;
    if (plan.rows_of_taps && plan.block_taps > task->kernel_width)
        plan.block_taps -= plan.block_taps % task->kernel_width;
    const size_t panel = plan.block_taps * plan.block_channels * line;
    const size_t panels = plan.panels.count * task->shape.groups;
    plan.block_panels = pk_min(pk_max(cache / 2 / panel, 1), panels);
    plan.blocks = pk_divide_up(panels, plan.block_panels);
    /* Enough pieces for the threads to share, a multiple of their number; whole tiles in each. */
    plan.tile_rows = plan.kernel->rows;
    if (task->input_pixel * sizeof(float) % CACHE_WAY == 0)
        plan.tile_rows = pk_min(plan.tile_rows, CACHE_WAYS);
    plan.tiles = pk_divide_up(plan.rows, plan.tile_rows);
    plan.line_tiles = 0;
    if (task->output_line) {
        plan.line_tiles = pk_divide_up(task->output_width, plan.tile_rows);
        plan.tiles = plan.line_tiles * task->output_height * task->batch;
    }
    plan.strips = 1;
    if (threads > 1)
        plan.strips = pk_round_up(pk_divide_up(threads * 4, plan.blocks), threads);
    plan.strips = pk_min(plan.strips, plan.tiles);
    return plan;
}

/* The inputs of one tile of rows for a block of taps. */
struct inputs {
    size_t count;
    size_t step; /* taps in one */
    const float *pointers[PK_F32_IGEMM_TAPS * PK_F32_IGEMM_ROWS];
    size_t taps[PK_F32_IGEMM_TAPS];
};

/* An output pixel: column, row, image. */
struct pixel {
    size_t x, y, image;
};

/* What a tile of pixels of one line reads that does not reach left or right of the image. Returns
 * whether it is one. */
static int find_line(const struct plan *plan, struct pixel *at, size_t rows, size_t first_tap,
                     size_t taps, struct inputs *found)
{
    const struct pk_f32_igemm_task *task = plan->task;
    const size_t height = task->input_height, width = task->input_width;
    const size_t reach = (task->kernel_width - 1) * task->dilation_width;
    const size_t top = at->y * task->stride_height - task->padding_top;
    const size_t left = at->x * task->stride_width - task->padding_left;
    if (at->x + rows > task->output_width || left >= width ||
        left + (rows - 1) * task->stride_width + reach >= width)
        return 0;
    size_t ky = first_tap / task->kernel_width, kx = first_tap % task->kernel_width, count = 0;
    const int merged = plan->rows_of_taps && kx == 0 && taps % task->kernel_width == 0;
    const size_t step = found->step = merged ? task->kernel_width : 1;
    const size_t pixel = task->stride_width * task->input_pixel;
    const float *corner = task->input + ((at->image * height + top) * width + left) * task->input_pixel;
    for (size_t t = 0; t < taps; t += step) {
        const size_t dy = ky * task->dilation_height, dx = kx * task->dilation_width;
        if (top + dy < height) {
            const float **pointers = found->pointers + count * PK_F32_IGEMM_ROWS;
            const float *input = corner + (dy * width + dx) * task->input_pixel;
            for (size_t m = 0; m < rows; m++)
                pointers[m] = input + m * pixel;
            found->taps[count++] = first_tap + t;
        }
        kx += step;
        if (kx >= task->kernel_width) {
            kx = 0;
            ky++;
        }
    }
    found->count = count;
    at->x += rows;
    if (at->x == task->output_width) {
        at->x = 0;
        if (++at->y == task->output_height) {
            at->y = 0;
            at->image++;
        }
    }
    return 1;
}

/* Taps of which all rows lie in the padding are left out. Where no row reads left or right of the
 * image, the taps of a row of the kernel are taken as one with so many times the channels. Moves
 * `at`, the pixel of the first row, to the one behind the last. */
static void find_inputs(const struct plan *plan, struct pixel *at, size_t rows, size_t first_tap,
                        size_t taps, struct inputs *found)
{
    if (find_line(plan, at, rows, first_tap, taps, found))
        return;
    const struct pk_f32_igemm_task *task = plan->task;
    const size_t height = task->input_height, width = task->input_width;
    const size_t reach_y = (task->kernel_height - 1) * task->dilation_height;
    const size_t reach_x = (task->kernel_width - 1) * task->dilation_width;
    const float *corner[PK_F32_IGEMM_ROWS]; /* where tap (0, 0) would be */
    size_t top[PK_F32_IGEMM_ROWS], left[PK_F32_IGEMM_ROWS];
    size_t ky = first_tap / task->kernel_width, kx = first_tap % task->kernel_width;
    int inside = 1, inside_x = 1;
    for (size_t m = 0; m < rows; m++) {
        /* What is above or left of the image wraps around; a tap's offset brings it back. */
        const size_t y = at->y * task->stride_height - task->padding_top;
        const size_t x = at->x * task->stride_width - task->padding_left;
        inside_x &= (x < width) & (x + reach_x < width);
        inside &= (y < height) & (y + reach_y < height);
        corner[m] = task->input + ((at->image * height + y) * width + x) * task->input_pixel;
        top[m] = y;
        left[m] = x;
        if (++at->x == task->output_width) {
            at->x = 0;
            if (++at->y == task->output_height) {
                at->y = 0;
                at->image++;
            }
        }
    }
    inside &= inside_x;
    const int merged = inside_x && plan->rows_of_taps && kx == 0 && taps % task->kernel_width == 0;
    const size_t step = found->step = merged ? task->kernel_width : 1;
    size_t count = 0;
    for (size_t t = 0; t < taps; t += step) {
        const float **pointers = found->pointers + count * PK_F32_IGEMM_ROWS;
        const size_t dy = ky * task->dilation_height, dx = kx * task->dilation_width;
        const size_t offset = (dy * width + dx) * task->input_pixel;
        int some = inside;
        if (inside) {
            for (size_t m = 0; m < rows; m++)
                pointers[m] = corner[m] + offset;
        } else {
            for (size_t m = 0; m < rows; m++) {
                const int there = (top[m] + dy < height) & (left[m] + dx < width);
                pointers[m] = there ? corner[m] + offset : task->zero;
                some |= there;
            }
        }
        found->taps[count] = first_tap + t;
        count += (size_t)some;
        kx += step;
        if (kx >= task->kernel_width) {
            kx = 0;
            ky++;
        }
    }
    found->count = count;
}

/* The same where pixel `row` of the output reads pixel `row` of the input alone. */
static void find_pixels(const struct pk_f32_igemm_task *task, size_t row, size_t rows,
                        struct inputs *found)
{
    const float *input = task->input + row * task->input_pixel;
    for (size_t m = 0; m < rows; m++)
        found->pointers[m] = input + m * task->input_pixel;
    found->taps[0] = 0;
    found->count = found->step = 1;
}

/* Panels `begin` to `end` (of all groups) for one tile of rows, taps and channels. */
static void run_tile(const struct plan *plan, const struct inputs *inputs, size_t begin, size_t end,
                     float *output, size_t rows, size_t first_channel, size_t channels, int first,
                     int last, size_t ahead)
{
    const struct pk_f32_igemm_task *task = plan->task;
    const struct pk_f32_igemm_kernel *kernel = plan->kernel;
    const struct pk_f32_panels *panels = &plan->panels;
    const float *weights[PK_F32_IGEMM_TAPS];
    struct pk_f32_tile tile;
    tile.taps = inputs->count;
    tile.channels = channels;
    tile.inputs = inputs->pointers;
    tile.weights = weights;
    tile.output_stride = task->output_pixel;
    tile.ahead = ahead;
    tile.min = last ? task->min : -INFINITY;
    tile.max = last ? task->max : INFINITY;
    tile.panel_stride = kernel->narrow ? panels->depth : panels->full_width * (panels->depth + 1);
    for (size_t i = begin, next; i < end; i = next) {
        /* The full panels of a group in one go; a narrower one by itself. */
        const size_t group = task->shape.groups == 1 ? 0 : i / panels->count; /* dividing is slow */
        const size_t panel = i - group * panels->count;
        const size_t narrow = panels->last_width < panels->full_width;
        const int alone = narrow && panel + 1 == panels->count;
        next = alone ? i + 1 : pk_min(end, (group + 1) * panels->count - narrow);
        const size_t width = alone ? panels->last_width : panels->full_width;
        const size_t channel = panel * panels->full_width;
        const float *packed = (const float *)task->packed + group * pk_f32_group_size(panels) +
                              channel * (panels->depth + 1);
        for (size_t t = 0; t < tile.taps; t++) {
            const size_t k = inputs->taps[t] * task->shape.input_channels + first_channel;
            weights[t] = packed + width + k * (kernel->narrow ? 1 : width);
        }
        tile.offset = group * task->shape.input_channels + first_channel;
        tile.bias = first ? packed : NULL;
        tile.output = output + group * task->shape.output_channels + channel;
        tile.columns = pk_min(task->shape.output_channels - channel, (next - i) * width);
        kernel->tiles[rows - 1][width > kernel->width](&tile);
    }
}

/* Tile number `tile` of those that end with their line: its first pixel, how many there are. Returns
 * where the first lies. */
static float *tile_of_line(const struct plan *plan, size_t tile, struct pixel *at, size_t *rows)
{
    const struct pk_f32_igemm_task *task = plan->task;
    const size_t line = tile / plan->line_tiles, part = tile % plan->line_tiles;
    at->x = part * task->output_width / plan->line_tiles;
    at->y = line % task->output_height;
    at->image = line / task->output_height;
    *rows = (part + 1) * task->output_width / plan->line_tiles - at->x;
    return task->output + at->image * task->output_image + at->y * task->output_line +
           at->x * task->output_pixel;
}

/* Piece `index` of the work: a block of panels, a strip of rows. */
static void run_piece(void *context, size_t index)
{
    const struct plan *plan = context;
    const struct pk_f32_igemm_task *task = plan->task;
    const size_t strip = index % plan->strips, block = index / plan->strips;
    const size_t panels = plan->panels.count * task->shape.groups;
    const size_t begin = block * plan->block_panels;
    const size_t end = pk_min(begin + plan->block_panels, panels);
    /* Strips of nearly equal height, and tiles, so that the last one is not a sliver. */
    const size_t first_tile = strip * plan->tiles / plan->strips;
    const size_t tiles = (strip + 1) * plan->tiles / plan->strips - first_tile;
    const size_t top = pk_min(first_tile * plan->tile_rows, plan->rows);
    const size_t bottom = pk_min(top + tiles * plan->tile_rows, plan->rows);
    const size_t lower = (bottom - top) / tiles, higher = (bottom - top) % tiles;
    const size_t y = top / task->output_width;
    const struct pixel start = {top % task->output_width, y % task->output_height,
                                y / task->output_height};
    const size_t all_taps = task->shape.taps, all_channels = task->shape.input_channels;
    /* The last tile fetches the weights of the next block. */
    const size_t ahead = plan->block_panels * plan->panels.full_width * (plan->panels.depth + 1);
    struct inputs inputs;
    for (size_t tap = 0; tap < all_taps; tap += plan->block_taps) {
        const size_t taps = pk_min(plan->block_taps, all_taps - tap);
        for (size_t c = 0; c < all_channels; c += plan->block_channels) {
            const size_t channels = pk_min(plan->block_channels, all_channels - c);
            const int first = tap == 0 && c == 0;
            const int last = tap + taps == all_taps && c + channels == all_channels;
            struct pixel at = start;
            for (size_t i = 0, row = top; i < tiles; i++) {
                size_t rows = lower + (i < higher);
                float *output = task->output + row * task->output_pixel;
                if (plan->line_tiles)
                    output = tile_of_line(plan, first_tile + i, &at, &rows);
                if (plan->one_to_one)
                    find_pixels(task, row, rows, &inputs);
                else
                    find_inputs(plan, &at, rows, tap, taps, &inputs);
                run_tile(plan, &inputs, begin, end, output, rows, c, inputs.step * channels, first,
                         last, i + 1 == tiles ? ahead : 0);
                row += rows;
            }
        }
    }
}

/* What is packed for narrow kernels is no other's. */
static int by_winograd(const struct pk_f32_igemm_task *task)
{
    return task->winograd && !pk_f32_igemm_kernel_of(&task->shape)->narrow;
}

PK_EXPORT size_t pk_f32_igemm_scratch_size(const struct pk_f32_igemm_task *task)
{
    return by_winograd(task) ? pk_f32_winograd_scratch_size(task) : 0;
}

PK_EXPORT void pk_f32_igemm_run(const struct pk_f32_igemm_task *task, const struct pk_pool *pool)
{
    if (task->batch * task->output_height * task->output_width == 0)
        return;
    if (by_winograd(task)) {
        pk_f32_winograd_run(task, pool);
        return;
    }
    struct plan plan = planned(task, pk_threads(pool));
    pk_parallelize(pool, run_piece, &plan, plan.blocks * plan.strips);
}
