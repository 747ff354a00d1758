/* int8 convolution: packing, the copy of the input, and how the work is cut. See qs8_conv.h. */
#include "qs8_conv.h"
#include "qs8_winograd.h"

#include <string.h>

#define MAX_ROWS 32
/* Kernels read whole vectors and groups beyond the last value of the prepared input. */
#define SLACK 128

static const struct pk_qs8_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VNNI)
        return &pk_qs8_avx512vnni;
    if (isa & PK_ISA_AVXVNNI)
        return &pk_qs8_avxvnni;
    if (isa & PK_ISA_AVX2)
        return &pk_qs8_avx2;
#endif
    (void)isa;
    return &pk_qs8_scalar;
}

static int by_winograd(const struct pk_qs8_conv *conv)
{
#if PK_X86
    return kernels_for(conv->isa) == &pk_qs8_avx2 && pk_qs8_winograd_suits(conv);
#else
    (void)conv;
    return 0;
#endif
}

/* How a kernel's taps lie in the prepared input. */
struct layout {
    size_t run;      /* values of a segment */
    size_t count;    /* of segments */
    size_t per_line; /* of segments, of each line of the kernel */
    size_t depth;    /* groups of a segment */
    size_t panel;    /* bytes of a packed panel */
    size_t panels;   /* of a group */
};

static struct layout layout_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    const int joined = conv->groups == 1 && conv->dilation_width == 1;
    struct layout l;
    l.per_line = joined ? 1 : conv->kernel_width;
    l.run = conv->group_input * (joined ? conv->kernel_width : 1);
    l.count = conv->kernel_height * l.per_line;
    l.depth = pk_divide_up(l.run, k->depth);
    l.panel = k->lanes * (8 + l.count * l.depth * k->depth);
    l.panel = pk_round_up(l.panel, PK_ALIGNMENT);
    l.panels = pk_divide_up(conv->group_output, k->lanes);
    return l;
}

size_t pk_qs8_conv_packed_size(const struct pk_qs8_conv *conv)
{
    const struct layout l = layout_of(conv, kernels_for(conv->isa));
    return conv->groups * l.panels * l.panel;
}

/* A channel's weights, each group of `depth` where it belongs: groups of the next step are `step`
 * bytes away. */
PK_INLINE void pack_channel(const struct layout *l, const int8_t *from, const size_t depth,
                            size_t step, int8_t *to)
{
    for (size_t s = 0; s < l->count; s++, from += l->run) {
        size_t i = 0;
        for (; i + depth <= l->run; i += depth, to += step)
            memcpy(to, from + i, depth);
        if (i < l->run) {
            memcpy(to, from + i, l->run - i);
            to += step;
        }
    }
}

static void pack_panel(const struct pk_qs8_kernels *k, const struct layout *l,
                       const int8_t *weights, const int32_t *bias, const float *scale,
                       size_t channels, int32_t correction, void *packed)
{
    int32_t *const start = packed;
    float *const scales = (float *)(start + k->lanes);
    int8_t *const to = (int8_t *)(scales + k->lanes);
    memset(packed, 0, l->panel);
    for (size_t c = 0; c < channels; c++) {
        const int8_t *const from = weights + c * l->count * l->run;
        uint32_t sum = 0;
        for (size_t i = 0; i < l->count * l->run; i++)
            sum += (uint32_t)from[i];
        start[c] = (int32_t)((bias ? (uint32_t)bias[c] : 0) - sum * (uint32_t)correction);
        scales[c] = scale[c];
        const size_t step = k->lanes * k->depth;
        if (k->depth == 4)
            pack_channel(l, from, 4, step, to + c * 4);
        else if (k->depth == 2)
            pack_channel(l, from, 2, step, to + c * 2);
        else
            pack_channel(l, from, 1, step, to + c);
    }
}

void pk_qs8_conv_pack(const struct pk_qs8_conv *conv, const int8_t *weights, const int32_t *bias,
                      const float *scale, void *packed)
{
    const struct pk_qs8_kernels *k = kernels_for(conv->isa);
    const struct layout l = layout_of(conv, k);
    /* What the prepared input stands for is less by this. */
    const int32_t correction = conv->input_zero_point + k->flip;
    char *to = packed;
    for (size_t g = 0; g < conv->groups; g++) {
        for (size_t p = 0; p < l.panels; p++) {
            const size_t within = p * k->lanes, first = g * conv->group_output + within;
            pack_panel(k, &l, weights + first * l.count * l.run, bias ? bias + first : NULL,
                       scale + first, pk_min(k->lanes, conv->group_output - within), correction,
                       to);
            to += l.panel;
        }
    }
}

/* How the work is cut. A stripe is a number of output lines of an image (of pixels, if the kernel is
 * 1x1 without stride or padding: `flat`) with its part of the input in scratch memory. */
struct plan {
    int flat;
    size_t lines;        /* of output, over all images, of all stripes */
    size_t stripe;       /* lines of a stripe */
    size_t per_image;    /* stripes */
    size_t stripes;
    size_t splits;       /* parts of the output channels of each stripe */
    size_t slots;        /* stripes that are in scratch memory at a time */
    size_t width;        /* pixels of a prepared line */
    size_t prepared;     /* prepared lines of a stripe, at most */
    size_t step_height, step_width; /* strides over the prepared lines and pixels */
    int raw;             /* the input is not prepared: kernels take it as it is */
    size_t slot;         /* bytes of a stripe in scratch memory */
    size_t wide;         /* bytes of the widened panels of a task, 0 if none are */
    size_t tasks;        /* that have a place in scratch memory for them */
};

/* Bytes of a widened panel. */
static size_t wide_size(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    const struct layout l = layout_of(conv, k);
    return pk_round_up(k->lanes * (8 + l.count * l.depth * k->depth * k->wide), PK_ALIGNMENT);
}

static struct plan plan_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    struct plan p;
    const int point = conv->kernel_height == 1 && conv->kernel_width == 1;
    const size_t channels = conv->groups * conv->group_input;
    const size_t outputs = conv->groups * conv->group_output;
    p.flat = point && conv->stride_height == 1 && conv->stride_width == 1 && !conv->padding_top &&
             !conv->padding_left && conv->output_height == conv->input_height &&
             conv->output_width == conv->input_width;
    /* A 1x1 kernel with strides needs the pixels that it reads, and no others. */
    p.step_height = point ? 1 : conv->stride_height;
    p.step_width = point ? 1 : conv->stride_width;
    const size_t reach_h = (conv->kernel_height - 1) * conv->dilation_height + 1;
    const size_t reach_w = (conv->kernel_width - 1) * conv->dilation_width + 1;
    const size_t images = p.flat ? 1 : conv->batch;
    const size_t lines = p.flat ? conv->batch * conv->output_height * conv->output_width
                                : conv->output_height;
    const size_t pixels = p.flat ? 1 : conv->output_width; /* of an output line */
    p.width = p.flat ? 1 : (conv->output_width - 1) * p.step_width + reach_w;
    const size_t line = p.width * channels * k->element; /* bytes */
    /* Half of the cache for a stripe's input and output. */
    const size_t budget = pk_max(conv->cache / 2, (size_t)64 << 10);
    const size_t each = p.step_height * line + pixels * outputs;
    const size_t fixed = reach_h * line;
    size_t stripe = budget > fixed + each ? (budget - fixed) / each : 1;
    stripe = pk_max(stripe, pk_divide_up(2 * k->rows, pixels));
    if (conv->threads > 1) {
        /* A few stripes a thread, but not many more copies of the lines that stripes share. */
        const size_t wanted = pk_divide_up(images * lines, 4 * conv->threads);
        const size_t least = pk_max(pk_divide_up(4 * k->rows, pixels), 2 * reach_h);
        stripe = pk_min(stripe, pk_max(wanted, least));
    }
    stripe = pk_min(stripe, pk_max(lines, 1));
    p.per_image = pk_divide_up(lines, stripe);
    if (p.per_image) {
        stripe = pk_divide_up(lines, p.per_image); /* alike */
        if (p.flat && stripe > 4 * k->rows)
            stripe = pk_round_up(stripe, k->rows);
        p.per_image = pk_divide_up(lines, stripe);
    }
    p.lines = lines;
    p.stripe = stripe;
    p.stripes = images * p.per_image;
    p.prepared = p.flat ? stripe : (stripe - 1) * p.step_height + reach_h;
    /* Few channels to make of each value: flipping signs on the way costs less than a copy. */
    p.raw = p.flat && k->raw && conv->groups == 1 && conv->group_output > k->lanes &&
            conv->group_output <= 2 * k->lanes * k->panels;
    p.slot = p.raw ? 0 : pk_round_up(p.prepared * line + SLACK, PK_ALIGNMENT);
    p.splits = 1;
    if (conv->threads > 1 && p.stripes < 2 * conv->threads) {
        const size_t panels = conv->groups * pk_divide_up(conv->group_output, k->lanes * k->panels);
        p.splits = pk_min(pk_divide_up(4 * conv->threads, pk_max(p.stripes, 1)), panels);
    }
    if (p.splits > 1)
        p.slots = p.stripes;
    else
        p.slots = pk_min(p.stripes, conv->threads > 1 ? 4 * conv->threads : 1);
    const size_t tiles = pk_divide_up(stripe * pixels, k->rows);
    p.wide = k->wide && tiles >= 4 ? k->panels * wide_size(conv, k) : 0;
    p.tasks = p.splits > 1 ? p.stripes * p.splits : p.slots;
    return p;
}

size_t pk_qs8_conv_scratch_size(const struct pk_qs8_conv *conv)
{
    if (by_winograd(conv))
        return pk_qs8_winograd_scratch_size(conv);
    const struct plan p = plan_of(conv, kernels_for(conv->isa));
    return p.slots * p.slot + p.tasks * p.wide;
}

struct work {
    const struct pk_qs8_conv *conv;
    const struct pk_qs8_kernels *k;
    struct layout l;
    struct plan p;
    const char *packed;
    const int8_t *input;
    int8_t *output;
    char *scratch, *wide;
};

/* The lines of a stripe: the image, the first line, their number. */
static size_t stripe_lines(const struct plan *p, size_t stripe, size_t *image, size_t *first)
{
    *image = stripe / p->per_image;
    *first = stripe % p->per_image * p->stripe;
    return pk_min(p->stripe, p->lines - *first);
}

static void fill(const struct work *w, char *to, size_t count)
{
    const int32_t value = w->conv->input_zero_point + w->k->flip;
    if (w->k->element == 1) {
        memset(to, value, count);
        return;
    }
    int16_t *const values = (int16_t *)to;
    for (size_t i = 0; i < count; i++)
        values[i] = (int16_t)value;
}

/* One line of the image from column `first` (negative: padding on the left) to scratch memory. */
static void prepare_line(const struct work *w, char *to, const int8_t *line, ptrdiff_t first)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t channels = conv->groups * conv->group_input, width = w->p.width;
    const size_t bytes = channels * w->k->element;
    const size_t left = first < 0 ? pk_min((size_t)-first, width) : 0;
    const size_t start = first < 0 ? 0 : (size_t)first;
    const size_t there = conv->input_width > start ? conv->input_width - start : 0;
    const size_t body = pk_min(width - left, there);
    if (left)
        fill(w, to, left * channels);
    if (body)
        w->k->prepare(to + left * bytes, line + start * channels, body * channels);
    if (left + body < width)
        fill(w, to + (left + body) * bytes, (width - left - body) * channels);
}

static void prepare_points(const struct work *w, char *to, const int8_t *line)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t channels = conv->groups * conv->group_input;
    for (size_t x = 0; x < conv->output_width; x++, to += channels * w->k->element) {
        const ptrdiff_t at = (ptrdiff_t)(x * conv->stride_width) - (ptrdiff_t)conv->padding_left;
        if (at < 0 || (size_t)at >= conv->input_width)
            fill(w, to, channels);
        else
            w->k->prepare(to, line + (size_t)at * channels, channels);
    }
}

static void prepare_stripe(const struct work *w, size_t stripe, char *to)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct plan *p = &w->p;
    const size_t channels = conv->groups * conv->group_input;
    size_t image, first;
    const size_t lines = stripe_lines(p, stripe, &image, &first);
    if (p->flat) {
        w->k->prepare(to, w->input + first * channels, lines * channels);
        return;
    }
    const int point = conv->kernel_height == 1 && conv->kernel_width == 1;
    const size_t count = p->prepared - (p->stripe - lines) * p->step_height;
    const size_t size = p->width * channels * w->k->element;
    const int8_t *from = w->input + image * conv->input_height * conv->input_width * channels;
    for (size_t i = 0; i < count; i++, to += size) {
        const size_t scaled = point ? (first + i) * conv->stride_height
                                    : first * conv->stride_height + i;
        const ptrdiff_t y = (ptrdiff_t)scaled - (ptrdiff_t)conv->padding_top;
        if (y < 0 || (size_t)y >= conv->input_height) {
            fill(w, to, p->width * channels);
            continue;
        }
        const int8_t *line = from + (size_t)y * conv->input_width * channels;
        if (point)
            prepare_points(w, to, line);
        else
            prepare_line(w, to, line, -(ptrdiff_t)conv->padding_left);
    }
}

/* Copies panels to scratch memory, wider. */
static const char *widened(const struct work *w, const char *panel, size_t panels, char *to)
{
    const size_t lanes = w->k->lanes, header = 8 * lanes;
    for (size_t i = 0; i < panels; i++) {
        char *const out = to + i * (w->p.wide / w->k->panels);
        memcpy(out, panel, header);
        w->k->widen(out + header, (const int8_t *)panel + header,
                    lanes * w->l.count * w->l.depth * w->k->depth);
        panel += w->l.panel;
    }
    return to;
}

/* The output channels of part `split`, for all pixels of a stripe. */
static void multiply_stripe(const struct work *w, size_t stripe, size_t split, const char *prepared,
                            char *wide)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct pk_qs8_kernels *k = w->k;
    const struct plan *p = &w->p;
    const struct layout *l = &w->l;
    const size_t channels = conv->groups * conv->group_input;
    const size_t outputs = conv->groups * conv->group_output;
    const size_t element = p->raw ? 1 : k->element;
    const size_t pixel = channels * element, line = p->width * pixel;
    size_t image, first;
    const size_t lines = stripe_lines(p, stripe, &image, &first);
    const size_t width = p->flat ? lines : conv->output_width;
    const size_t pixels = p->flat ? lines : lines * width;
    int8_t *const out = w->output + (image * p->lines + first) * (p->flat ? 1 : width) * outputs;

    if (p->raw)
        prepared = (const char *)w->input + first * channels;
    size_t segments[l->count];
    for (size_t s = 0; s < l->count; s++)
        segments[s] = s / l->per_line * conv->dilation_height * line +
                      s % l->per_line * conv->dilation_width * pixel;
    const void *rows[MAX_ROWS];
    struct pk_qs8_tile tile = {
        .rows = rows, .segments = segments, .segment_count = l->count, .segment_depth = l->depth,
        .panel_size = p->wide ? p->wide / k->panels : l->panel, .output_stride = outputs,
        .zero_point = conv->output_zero_point, .min = conv->output_min, .max = conv->output_max,
        .raw = p->raw,
    };
    void (*const run)(const struct pk_qs8_tile *, size_t) = p->wide ? k->wide_tile : k->tile;
    const size_t tiles = pk_divide_up(pixels, k->rows);
    const size_t blocks = pk_divide_up(l->panels, k->panels), all = conv->groups * blocks;
    for (size_t b = all * split / p->splits; b < all * (split + 1) / p->splits; b++) {
        const size_t g = b / blocks, panel = b % blocks * k->panels;
        const size_t within = panel * k->lanes;
        const char *start = prepared + g * conv->group_input * element;
        tile.panel = w->packed + (g * l->panels + panel) * l->panel;
        if (p->wide)
            tile.panel = widened(w, tile.panel, pk_min(k->panels, l->panels - panel), wide);
        tile.channels = pk_min(k->lanes * k->panels, conv->group_output - within);
        size_t pixel_at = 0;
        for (size_t t = 0; t < tiles; t++) {
            const size_t next = pixels * (t + 1) / tiles, count = next - pixel_at;
            size_t y = pixel_at / width, x = pixel_at % width;
            const char *row = start + y * p->step_height * line + x * p->step_width * pixel;
            for (size_t r = 0; r < count; r++) {
                rows[r] = row;
                row += p->step_width * pixel;
                if (++x == width) {
                    x = 0;
                    row = start + ++y * p->step_height * line;
                }
            }
            tile.output = out + pixel_at * outputs + g * conv->group_output + within;
            run(&tile, count);
            pixel_at = next;
        }
    }
}

static void chunk_task(void *context, size_t index)
{
    const struct work *w = context;
    char *slot = w->scratch + index * w->p.slot;
    const size_t begin = w->p.stripes * index / w->p.slots;
    const size_t end = w->p.stripes * (index + 1) / w->p.slots;
    for (size_t stripe = begin; stripe < end; stripe++) {
        if (!w->p.raw)
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

void pk_qs8_conv_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool)
{
    const struct pk_qs8_conv *conv = &task->conv;
#if PK_X86
    if (by_winograd(conv)) {
        pk_qs8_winograd_run(task, pool);
        return;
    }
#endif
    struct work w = {.conv = conv, .packed = task->packed, .input = task->input,
                     .output = task->output, .scratch = task->scratch};
    w.k = kernels_for(conv->isa);
    w.l = layout_of(conv, w.k);
    w.p = plan_of(conv, w.k);
    w.wide = w.scratch + w.p.slots * w.p.slot;
    if (w.p.splits == 1) {
        pk_parallelize(pool, chunk_task, &w, w.p.slots);
        return;
    }
    if (!w.p.raw)
        pk_parallelize(pool, prepare_task, &w, w.p.stripes);
    pk_parallelize(pool, multiply_task, &w, w.p.stripes * w.p.splits);
}

const char *pk_qs8_conv_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
