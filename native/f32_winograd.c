/* F(2x2, 3x3): how tiles lie in images, blocking for caches, spreading over threads.
 *
 * Tiles go in chunks. For a chunk the input is transformed once; then for each panel of output
 * channels its weights are transformed, a block of input channels at a time, the 16 products are
 * made, and the outputs are put together.
 */
#include "f32_winograd.h"

#include <math.h>

#define POINTS PK_F32_WINOGRAD_POINTS
#define FLOATS_OF_LINE (PK_ALIGNMENT / sizeof(float))
#define WIDEST_PANEL 32

/* The least tiles of a chunk that make its weights' transform cheap beside its products. */
#define ENOUGH_TILES 48
#define MOST_TILES 128

static const float zeros[WIDEST_PANEL];

static const struct pk_f32_winograd_kernel *transforms_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_winograd_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_winograd_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_winograd_neon;
#endif
    (void)isa;
    return &pk_f32_winograd_scalar;
}

struct plan {
    const struct pk_f32_igemm_task *task;
    const struct pk_f32_igemm_kernel *kernel;
    const struct pk_f32_winograd_kernel *transforms;
    char *scratch;
    size_t panel_width, panels;
    size_t across, down, tiles; /* of an image, of an image, of all images */
    size_t chunk, chunks;       /* tiles of one */
    size_t block;               /* input channels of a block of weights */
    size_t depth;               /* from tile to tile of the transformed input, in floats */
    /* From one of the 16 elements to the next, in floats: no multiples of the size of a way of the
     * cache, or they push each other out. */
    size_t input_step, weights_step, sums_step;
    size_t input, weights, sums; /* bytes of scratch memory */
    /* Chunks are spread over `slots`, each with scratch memory of its own; or, of one chunk, the
     * panels over `splits`. */
    size_t slots, splits;
};

/* With dilation d a tile has the outputs (y, y + d) x (x, x + d). */
static size_t tiles_along(size_t outputs, size_t dilation)
{
    return pk_divide_up(outputs, 2 * dilation) * dilation;
}

/* Floats that do not fall on the same lines of the cache, one from each of some rows. */
static size_t apart(size_t floats)
{
    floats = pk_round_up(floats, FLOATS_OF_LINE);
    return floats % (4 * FLOATS_OF_LINE) ? floats : floats + FLOATS_OF_LINE;
}

static struct plan planned(const struct pk_f32_igemm_task *task)
{
    struct plan p;
    p.task = task;
    p.kernel = pk_f32_igemm_kernel_for(task->shape.isa);
    p.transforms = transforms_for(task->shape.isa);
    p.scratch = task->scratch;
    p.panel_width = p.kernel->width * p.kernel->vectors;
    p.panels = pk_divide_up(task->shape.output_channels, p.panel_width);
    p.across = tiles_along(task->output_width, task->dilation_width);
    p.down = tiles_along(task->output_height, task->dilation_height);
    p.tiles = task->batch * p.across * p.down;
    const size_t channels = task->shape.input_channels, threads = pk_max(task->threads, 1);
    const size_t cache = task->caches.l2 ? task->caches.l2 : (size_t)256 << 10;
    p.depth = apart(channels);
    p.block = pk_min(channels, 128);
    size_t most = pk_max(2 * cache / (p.depth * POINTS * sizeof(float)), ENOUGH_TILES);
    most = pk_min(most, MOST_TILES);
    p.chunks = pk_divide_up(p.tiles, most);
    p.splits = 1;
    if (threads > 1 && p.panels > 1 && p.tiles < ENOUGH_TILES * threads)
        p.splits = pk_min(threads, p.panels), p.chunks = 1;
    else
        p.chunks = pk_min(pk_round_up(p.chunks, threads), p.tiles);
    p.chunk = pk_divide_up(p.tiles, p.chunks);
    p.chunks = pk_divide_up(p.tiles, p.chunk);
    p.slots = pk_min(p.chunks, threads);
    p.input_step = apart(p.chunk * p.depth);
    p.weights_step = apart(p.block * p.panel_width);
    p.sums_step = apart(p.chunk * p.panel_width);
    p.input = POINTS * p.input_step * sizeof(float);
    p.weights = POINTS * p.weights_step * sizeof(float);
    p.sums = POINTS * p.sums_step * sizeof(float);
    return p;
}

size_t pk_f32_winograd_scratch_size(const struct pk_f32_igemm_task *task)
{
    const struct plan p = planned(task);
    return p.slots * p.input + pk_max(p.slots, p.splits) * (p.weights + p.sums);
}

/* A tile: its image, and its first output. */
struct place {
    size_t image, y, x;
};

static struct place place_of(const struct plan *p, size_t tile)
{
    const size_t image = tile / (p->across * p->down), rest = tile % (p->across * p->down);
    const size_t ty = rest / p->across, tx = rest % p->across;
    const size_t dy = p->task->dilation_height, dx = p->task->dilation_width;
    return (struct place){image, ty / dy * 2 * dy + ty % dy, tx / dx * 2 * dx + tx % dx};
}

/* The input that tap (y, x) of the output at `place` reads; NULL if it lies in the padding. */
static const float *input_of(const struct plan *p, struct place place, size_t y, size_t x)
{
    const struct pk_f32_igemm_task *task = p->task;
    /* What is above or left of the image wraps around. */
    const size_t row = place.y + y * task->dilation_height - task->padding_top;
    const size_t column = place.x + x * task->dilation_width - task->padding_left;
    if (row >= task->input_height || column >= task->input_width)
        return NULL;
    const size_t pixel = (place.image * task->input_height + row) * task->input_width + column;
    return task->input + pixel * task->input_pixel;
}

static void transform_tiles(const struct plan *p, size_t begin, size_t end, float *to)
{
    const size_t channels = p->task->shape.input_channels;
    for (size_t tile = begin; tile < end; tile++, to += p->depth) {
        const struct place place = place_of(p, tile);
        const float *pixels[POINTS];
        for (size_t i = 0; i < POINTS; i++) {
            const float *input = input_of(p, place, i / 4, i % 4);
            pixels[i] = input ? input : p->task->zero;
        }
        p->transforms->input(pixels, channels, to, p->input_step);
    }
}

/* The 16 products of `tiles` tiles and a panel, over a block of input channels. Meanwhile the
 * weights of `next` are fetched, which will be transformed then. */
static void multiply(const struct plan *p, const float *input, size_t tiles, const float *weights,
                     size_t channels, size_t width, int first, const float *next, size_t tap,
                     float *sums)
{
    const size_t pieces = pk_divide_up(tiles, p->kernel->rows);
    const size_t lower = tiles / pieces, higher = tiles % pieces;
    const size_t vectors = width / p->kernel->width;
    const float *inputs[PK_F32_IGEMM_ROWS];
    struct pk_f32_tile tile = {
        .taps = 1, .channels = channels, .inputs = inputs, .weights = &weights,
        .bias = first ? zeros : NULL, .output_stride = p->panel_width, .columns = width,
        .min = -INFINITY, .max = INFINITY,
    };
    for (size_t i = 0; i < POINTS; i++) {
        tile.output = sums;
        tile.ahead = next && i < PK_F32_WINOGRAD_TAPS ? (size_t)(next + i * tap - weights) : 0;
        const float *row = input;
        for (size_t piece = 0; piece < pieces; piece++) {
            const size_t rows = lower + (piece < higher);
            for (size_t m = 0; m < rows; m++, row += p->depth)
                inputs[m] = row;
            p->kernel->tiles[rows - 1][vectors - 1](&tile);
            tile.output += rows * p->panel_width;
        }
        input += p->input_step;
        weights += p->weights_step;
        sums += p->sums_step;
    }
}

/* One output by its definition. */
static void compute_pixel(const struct plan *p, struct place place, const float *packed,
                          size_t width, size_t columns, float *output)
{
    const struct pk_f32_igemm_task *task = p->task;
    const float *inputs[PK_F32_WINOGRAD_TAPS * PK_F32_IGEMM_ROWS];
    const float *weights[PK_F32_WINOGRAD_TAPS];
    size_t taps = 0;
    for (size_t t = 0; t < PK_F32_WINOGRAD_TAPS; t++) {
        const float *input = input_of(p, place, t / 3, t % 3);
        if (!input)
            continue;
        inputs[taps * PK_F32_IGEMM_ROWS] = input;
        weights[taps++] = packed + (1 + t * task->shape.input_channels) * width;
    }
    const struct pk_f32_tile tile = {
        .taps = taps, .channels = task->shape.input_channels, .inputs = inputs, .weights = weights,
        .bias = packed, .output = output, .columns = columns, .min = task->min, .max = task->max,
    };
    p->kernel->tiles[0][width / p->kernel->width - 1](&tile);
}

static void put_tiles(const struct plan *p, size_t begin, size_t end, const float *sums,
                      const float *packed, size_t width, size_t first)
{
    const struct pk_f32_igemm_task *task = p->task;
    const size_t dy = task->dilation_height, dx = task->dilation_width;
    struct pk_f32_winograd_output output = {
        .sums = sums, .step = p->sums_step, .bias = packed,
        .channels = pk_min(task->shape.output_channels - first, width),
        .min = task->min, .max = task->max,
    };
    for (size_t i = begin; i < end; i++, output.sums += p->panel_width) {
        const struct place place = place_of(p, i);
        struct place at[4];
        for (size_t k = 0; k < 4; k++) {
            at[k] = (struct place){place.image, place.y + k / 2 * dy, place.x + k % 2 * dx};
            const size_t row = place.image * task->output_height + at[k].y;
            const int inside = at[k].y < task->output_height && at[k].x < task->output_width;
            output.pixels[k] = inside ? task->output +
                                            (row * task->output_width + at[k].x) * task->output_pixel +
                                            first
                                      : NULL;
        }
        if (p->transforms->output(&output))
            continue;
        for (size_t k = 0; k < 4; k++)
            if (output.pixels[k])
                compute_pixel(p, at[k], packed, width, output.channels, output.pixels[k]);
    }
}

/* Panels `begin` to `end` of one chunk, whose input is transformed. */
static void run_panels(const struct plan *p, size_t chunk, size_t begin, size_t end,
                       const float *input, char *scratch)
{
    const size_t channels = p->task->shape.input_channels, all = p->task->shape.output_channels;
    const size_t first = chunk * p->chunk, last = pk_min(first + p->chunk, p->tiles);
    float *const weights = (float *)scratch, *const sums = (float *)(scratch + p->weights);
    for (size_t panel = begin; panel < end; panel++) {
        const size_t channel = panel * p->panel_width;
        const size_t width =
            pk_min(p->panel_width, pk_round_up(all - channel, p->kernel->width));
        const float *packed = (const float *)p->task->packed +
                              channel * (1 + PK_F32_WINOGRAD_TAPS * channels);
        for (size_t c = 0; c < channels; c += p->block) {
            const size_t count = pk_min(p->block, channels - c), tap = channels * width;
            const float *const block = packed + (1 + c) * width;
            const float *next = NULL;
            if (c + count < channels)
                next = block + count * width;
            else if (panel + 1 < end) /* nearly, if that panel is narrower */
                next = packed + (2 + PK_F32_WINOGRAD_TAPS * channels) * width;
            p->transforms->weights(block, tap, count * width, weights, p->weights_step);
            multiply(p, input + c, last - first, weights, count, width, c == 0, next, tap, sums);
        }
        put_tiles(p, first, last, sums, packed, width, channel);
    }
}

static void run_slot(void *context, size_t slot)
{
    const struct plan *p = context;
    char *const scratch = p->scratch + slot * (p->input + p->weights + p->sums);
    const size_t end = p->chunks * (slot + 1) / p->slots;
    for (size_t chunk = p->chunks * slot / p->slots; chunk < end; chunk++) {
        const size_t first = chunk * p->chunk;
        transform_tiles(p, first, pk_min(first + p->chunk, p->tiles), (float *)scratch);
        run_panels(p, chunk, 0, p->panels, (const float *)scratch, scratch + p->input);
    }
}

static void transform_split(void *context, size_t split)
{
    const struct plan *p = context;
    const size_t begin = p->tiles * split / p->splits, end = p->tiles * (split + 1) / p->splits;
    transform_tiles(p, begin, end, (float *)p->scratch + begin * p->depth);
}

static void run_split(void *context, size_t split)
{
    const struct plan *p = context;
    char *const scratch = p->scratch + p->input + split * (p->weights + p->sums);
    run_panels(p, 0, p->panels * split / p->splits, p->panels * (split + 1) / p->splits,
               (const float *)p->scratch, scratch);
}

void pk_f32_winograd_run(const struct pk_f32_igemm_task *task, const struct pk_pool *pool)
{
    struct plan p = planned(task);
    if (p.splits == 1) {
        pk_parallelize(pool, run_slot, &p, p.slots);
        return;
    }
    pk_parallelize(pool, transform_split, &p, p.splits);
    pk_parallelize(pool, run_split, &p, p.splits);
}
