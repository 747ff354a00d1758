/* int8 convolution: the copy of the input, and its products. See qs8_conv.h. */
#include "qs8_parts.h"
#include "qs8_strassen.h"
#include "qs8_winograd.h"

#include <string.h>

#if PK_X86
static int by_strassen(const struct pk_qs8_conv *conv)
{
    return pk_qs8_kernels_for(conv->isa) == &pk_qs8_avx2 && !conv->output_line &&
           pk_qs8_strassen_suits(conv);
}

static int by_winograd(const struct pk_qs8_conv *conv)
{
    return pk_qs8_kernels_for(conv->isa) == &pk_qs8_avx2 && !conv->output_line &&
           pk_qs8_winograd_suits(conv);
}
#endif

size_t pk_qs8_conv_scratch_size(const struct pk_qs8_conv *conv)
{
#if PK_X86
    if (by_winograd(conv))
        return pk_qs8_winograd_scratch_size(conv);
    if (by_strassen(conv))
        return pk_qs8_strassen_scratch_size(conv);
#endif
    const struct pk_qs8_plan p = pk_qs8_plan_of(conv, pk_qs8_kernels_for(conv->isa));
    return p.slots * p.slot + p.tasks * p.wide;
}

struct work {
    const struct pk_qs8_conv *conv;
    const struct pk_qs8_kernels *k;
    struct pk_qs8_layout l;
    struct pk_qs8_plan p;
    const char *packed;
    const char *input;
    void *output;
    char *scratch, *wide;
    size_t element; /* bytes of a value of the input */
    const struct pk_qd8_row *dynamic;
    float min, max; /* of a dynamic product */
};

/* The first line of stripe `index` of an image. */
static size_t line_of(const struct pk_qs8_plan *p, size_t index)
{
    return pk_part_begin(p->lines, p->per_image, p->unit, index);
}

/* The lines of a stripe: the image, the first line, their number. */
static size_t stripe_lines(const struct pk_qs8_plan *p, size_t stripe, size_t *image, size_t *first)
{
    *image = stripe / p->per_image;
    *first = line_of(p, stripe % p->per_image);
    return line_of(p, stripe % p->per_image + 1) - *first;
}

/* What a value of padding is, as kernels multiply it. */
static int32_t padding_of(const struct work *w, size_t image)
{
    return (w->dynamic ? w->dynamic[image].zero_point : w->conv->input_zero_point) + w->k->flip;
}

static void fill(const struct work *w, char *to, size_t count, int32_t value)
{
    if (w->k->element == 1) {
        memset(to, value, count);
        return;
    }
    int16_t *const values = (int16_t *)to;
    for (size_t i = 0; i < count; i++)
        values[i] = (int16_t)value;
}

/* Values of the input in the form of the kernels, which those quantized at run time have already. */
static void prepare(const struct work *w, char *to, const char *from, size_t count)
{
    if (w->dynamic)
        memcpy(to, from, count * w->k->element);
    else
        w->k->prepare(to, (const int8_t *)from, count);
}

/* One line of the image from column `first` (negative: padding on the left) to scratch memory. */
static void prepare_line(const struct work *w, char *to, const char *line, ptrdiff_t first,
                         int32_t padding)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t channels = conv->groups * conv->group_input, width = w->p.width;
    const size_t bytes = channels * w->k->element;
    const size_t left = first < 0 ? pk_min((size_t)-first, width) : 0;
    const size_t start = first < 0 ? 0 : (size_t)first;
    const size_t there = conv->input_width > start ? conv->input_width - start : 0;
    const size_t body = pk_min(width - left, there);
    if (left)
        fill(w, to, left * channels, padding);
    if (body)
        prepare(w, to + left * bytes, line + start * channels * w->element, body * channels);
    if (left + body < width)
        fill(w, to + (left + body) * bytes, (width - left - body) * channels, padding);
}

static void prepare_points(const struct work *w, char *to, const char *line, int32_t padding)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t channels = conv->groups * conv->group_input;
    for (size_t x = 0; x < conv->output_width; x++, to += channels * w->k->element) {
        const ptrdiff_t at = (ptrdiff_t)(x * conv->stride_width) - (ptrdiff_t)conv->padding_left;
        if (at < 0 || (size_t)at >= conv->input_width)
            fill(w, to, channels, padding);
        else
            prepare(w, to, line + (size_t)at * channels * w->element, channels);
    }
}

/* To `to`; the end of the copy. */
static char *copy_stripe(const struct work *w, size_t stripe, char *to)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct pk_qs8_plan *p = &w->p;
    const size_t channels = conv->groups * conv->group_input, pixel = channels * w->element;
    size_t image, first;
    const size_t lines = stripe_lines(p, stripe, &image, &first);
    if (p->flat) {
        prepare(w, to, w->input + first * pixel, lines * channels);
        return to + lines * channels * w->k->element;
    }
    const int32_t padding = padding_of(w, image);
    const int point = conv->kernel_height == 1 && conv->kernel_width == 1;
    const size_t count = p->prepared - (p->stripe - lines) * p->step_height;
    const size_t size = p->width * channels * w->k->element;
    const char *from = w->input + image * conv->input_height * conv->input_width * pixel;
    for (size_t i = 0; i < count; i++, to += size) {
        const size_t scaled = point ? (first + i) * conv->stride_height
                                    : first * conv->stride_height + i * p->apart;
        const ptrdiff_t y = (ptrdiff_t)scaled - (ptrdiff_t)conv->padding_top;
        if (y < 0 || (size_t)y >= conv->input_height) {
            fill(w, to, p->width * channels, padding);
            continue;
        }
        const char *line = from + (size_t)y * conv->input_width * pixel;
        if (point)
            prepare_points(w, to, line, padding);
        else
            prepare_line(w, to, line, -(ptrdiff_t)conv->padding_left, padding);
    }
    return to;
}

/* Where the taps of a group lie from the first one on, in bytes. */
static void segments_of(const struct work *w, size_t group, size_t *segments)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t pixel = conv->groups * conv->group_input * w->k->element;
    const size_t line = w->p.width * pixel;
    for (size_t s = 0; s < w->l.count; s++)
        segments[s] = s / w->l.per_line * (conv->dilation_height / w->p.apart) * line +
                      s % w->l.per_line * conv->dilation_width * pixel +
                      group * conv->group_input * w->k->element;
}

/* The own products of each pixel of a stripe. */
static void own_products(const struct work *w, size_t pixels, char *slot)
{
    const char *const *rows = (const char *const *)(slot + w->p.rows);
    int32_t *const own = (int32_t *)(slot + w->p.own);
    size_t segments[w->l.count];
    segments_of(w, 0, segments);
    for (size_t i = 0; i < pixels; i++) {
        uint32_t sum = 0;
        for (size_t s = 0; s < w->l.count; s++)
            sum += (uint32_t)w->k->own_of_row(rows[i] + segments[s], w->l.depth);
        own[i] = (int32_t)sum;
    }
}

/* What all output channels of a stripe need: the input in the form of the kernels, where the rows
 * lie, and what is to be taken back. */
static void prepare_rows(const struct work *w, size_t stripe, char *slot)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct pk_qs8_plan *p = &w->p;
    const size_t channels = conv->groups * conv->group_input;
    const size_t pixel = channels * w->k->element, line = p->width * pixel;
    const char **rows = (const char **)(slot + p->rows);
    size_t image, first;
    const size_t lines = stripe_lines(p, stripe, &image, &first);
    const char *start = slot;
    if (p->copied) /* an odd run of values has own products of the one behind it too */
        memset(copy_stripe(w, stripe, slot), 0, w->k->depth * w->k->element);
    else
        start = w->input + (image * conv->input_height + first * p->step_height) * line;
    if (p->form == PK_QS8_SIGNED)
        w->k->sum_rows((int32_t *)(slot + p->corrections), (const int8_t *)start, lines, channels);
    if (p->flat) { /* one loop, which needs no multiplication: there may be little to do for a row */
        for (size_t i = 0; i < lines; i++, start += pixel)
            rows[i] = start;
        return;
    }
    if (w->dynamic) {
        struct pk_qd8_row *const dynamic = (struct pk_qd8_row *)(slot + p->corrections);
        for (size_t i = 0; i < lines * conv->output_width; i++)
            dynamic[i] = w->dynamic[image];
    }
    for (size_t y = 0; y < lines; y++)
        for (size_t x = 0; x < conv->output_width; x++)
            *rows++ = start + y * p->step_height * line + x * p->step_width * pixel;
}

static void prepare_stripe(const struct work *w, size_t stripe, char *slot)
{
    prepare_rows(w, stripe, slot);
    if (!w->p.own)
        return;
    size_t image, first;
    const size_t lines = stripe_lines(&w->p, stripe, &image, &first);
    own_products(w, lines * (w->p.flat ? 1 : w->conv->output_width), slot);
}

/* Copies panels to scratch memory, wider. */
static const char *widened(const struct work *w, const char *panel, size_t panels, char *to)
{
    for (size_t i = 0; i < panels; i++) {
        char *const out = to + i * (w->p.wide / w->k->panels);
        memcpy(out, panel, w->l.header);
        w->k->widen(out + w->l.header, (const int8_t *)panel + w->l.header,
                    w->k->lanes * w->l.count * w->l.depth * w->k->depth);
        const size_t own = w->k->lanes * PK_QS8_OWN; /* at the end */
        if (w->p.own)
            memcpy(out + w->p.wide / w->k->panels - own, panel + w->l.panel - own, own);
        panel += w->l.panel;
    }
    return to;
}

/* So many pixels from number `first` on, whose lines lie apart. */
static void multiply_lines(const struct work *w, const struct pk_qs8_tile *all, pk_qs8_tiles tiles,
                           size_t first, size_t pixels, char *output)
{
    const struct pk_qs8_conv *conv = w->conv;
    struct pk_qs8_tile tile = *all;
    for (size_t done = 0, count; done < pixels; done += count) {
        const size_t line = (first + done) / conv->output_width;
        const size_t x = (first + done) % conv->output_width;
        count = pk_min(conv->output_width - x, pixels - done);
        tile.rows = all->rows + done;
        tile.corrections = all->corrections + done;
        tile.output = output + line / conv->output_height * conv->output_image +
                      line % conv->output_height * conv->output_line + x * all->output_stride;
        tile.ahead = done + count < pixels ? 0 : all->ahead; /* weights of the next panels */
        tiles(&tile, count, w->p.form);
    }
}

/* The output channels of part `split`, for all pixels of a stripe. */
static void multiply_stripe(const struct work *w, size_t stripe, size_t split, const char *slot,
                            char *wide)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct pk_qs8_kernels *k = w->k;
    const struct pk_qs8_plan *p = &w->p;
    const struct pk_qs8_layout *l = &w->l;
    const size_t apart = conv->output_pixel ? conv->output_pixel : conv->groups * conv->group_output;
    const size_t width = p->flat ? 1 : conv->output_width;
    const size_t output_size = p->form == PK_QS8_DYNAMIC ? sizeof(float) : 1;
    size_t image, first;
    const size_t lines = stripe_lines(p, stripe, &image, &first), pixels = lines * width;
    const size_t before = (image * p->lines + first) * width; /* pixels */
    size_t segments[l->count];
    struct pk_qs8_tile tile = {
        .rows = (const void *const *)(slot + p->rows), .segments = segments,
        .segment_count = l->count, .segment_depth = l->depth,
        .panel_size = p->wide ? p->wide / k->panels : l->panel, .output_stride = apart,
        .zero_point = conv->output_zero_point, .min = conv->output_min, .max = conv->output_max,
        .corrections = (const int32_t *)(slot + (p->own ? p->own : p->corrections)),
        .dynamic = p->flat && w->dynamic ? w->dynamic + before
                                         : (const struct pk_qd8_row *)(slot + p->corrections),
        .float_min = w->min, .float_max = w->max,
    };
    const pk_qs8_tiles tiles = p->own ? k->own_tiles : p->wide ? k->wide_tiles : k->tiles;
    const size_t blocks = pk_divide_up(l->panels, k->panels), all = conv->groups * blocks;
    const size_t end = all * (split + 1) / p->splits;
    for (size_t b = all * split / p->splits; b < end; b++) {
        const size_t g = b / blocks, panel = b % blocks * k->panels;
        const size_t within = panel * k->lanes;
        segments_of(w, g, segments);
        const size_t count = pk_min(k->panels, l->panels - panel);
        tile.panel = w->packed + (g * l->panels + panel) * l->panel;
        tile.ahead = b + 1 < end ? count * l->panel : 0;
        if (p->wide)
            tile.panel = widened(w, tile.panel, count, wide);
        tile.channels = pk_min(k->lanes * k->panels, conv->group_output - within);
        char *const output = (char *)w->output + (g * conv->group_output + within) * output_size;
        if (conv->output_line) {
            multiply_lines(w, &tile, tiles, before, pixels, output);
            continue;
        }
        tile.output = output + before * apart * output_size;
        tiles(&tile, pixels, p->form);
    }
}

static void chunk_task(void *context, size_t index)
{
    const struct work *w = context;
    char *slot = w->scratch + index * w->p.slot;
    const size_t begin = w->p.stripes * index / w->p.slots;
    const size_t end = w->p.stripes * (index + 1) / w->p.slots;
    for (size_t stripe = begin; stripe < end; stripe++) {
        prepare_stripe(w, stripe, slot);
        multiply_stripe(w, stripe, 0, slot, w->wide + index * w->p.wide);
    }
}

static void prepare_task(void *context, size_t index)
{
    const struct work *w = context;
    prepare_stripe(w, index, w->scratch + index * w->p.slot);
}

static void multiply_task(void *context, size_t index)
{
    const struct work *w = context;
    const size_t stripe = index % w->p.stripes;
    multiply_stripe(w, stripe, index / w->p.stripes, w->scratch + stripe * w->p.slot,
                    w->wide + index * w->p.wide);
}

static void run(const struct pk_qs8_conv *conv, const struct pk_qs8_product *product,
                const struct pk_pool *pool)
{
#if PK_X86
    if (by_strassen(conv)) {
        pk_qs8_strassen_run(conv, product, pool);
        return;
    }
#endif
    struct work w = {.conv = conv, .packed = product->packed, .input = product->values,
                     .output = product->output, .scratch = product->scratch,
                     .dynamic = product->rows, .min = product->min, .max = product->max};
    w.k = pk_qs8_kernels_for(conv->isa);
    w.element = product->rows ? w.k->element : 1;
    w.l = pk_qs8_layout_of(conv, w.k);
    w.p = pk_qs8_plan_of(conv, w.k);
    w.wide = w.scratch + w.p.slots * w.p.slot;
    if (w.p.splits == 1) {
        pk_parallelize(pool, chunk_task, &w, w.p.slots);
        return;
    }
    pk_parallelize(pool, prepare_task, &w, w.p.stripes);
    pk_parallelize(pool, multiply_task, &w, w.p.stripes * w.p.splits);
}

void pk_qs8_conv_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool)
{
#if PK_X86
    if (by_winograd(&task->conv)) {
        pk_qs8_winograd_run(task, pool);
        return;
    }
#endif
    const struct pk_qs8_product product = {.packed = task->packed, .values = task->input,
                                           .output = task->output, .scratch = task->scratch};
    run(&task->conv, &product, pool);
}

const char *pk_qs8_conv_kernel(uint32_t isa)
{
    return pk_qs8_kernels_for(isa)->name;
}

void pk_qs8_conv_run_dynamic(const struct pk_qs8_conv *conv, const struct pk_qs8_product *product,
                             const struct pk_pool *pool)
{
    run(conv, product, pool);
}
