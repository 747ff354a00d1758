/* int8 convolution: how the work is cut. See qs8_parts.h. */
#include "qs8_parts.h"

/* What own products save of a run for each channel makes up for finding those of the run with so many
 * channels; and what is left must make up for the rest of the work on a pixel. */
#define OWN_LEAST 16
#define OWN_WORTH 6144

/* Bytes of a widened panel. */
static size_t wide_size(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    const struct pk_qs8_layout l = pk_qs8_layout_of(conv, k);
    return pk_round_up(l.header + k->lanes * l.count * l.depth * k->depth * k->wide +
                           (l.own ? k->lanes * PK_QS8_OWN : 0),
                       PK_ALIGNMENT);
}

/* Whether tiles by own products are worth finding those of each pixel (`benchmarks/kernels.py`). Of an
 * odd run the value behind it counts too, which only a copy of the input is sure to have. */
static int by_own_products(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k, int copied)
{
    const struct pk_qs8_layout l = pk_qs8_layout_of(conv, k);
    return l.own && (copied || l.run % k->depth == 0) &&
           conv->group_output > OWN_LEAST && l.run * (conv->group_output - OWN_LEAST) >= OWN_WORTH;
}

/* Whether windows reach beyond the image. */
static int reaches_out(const struct pk_qs8_conv *conv, size_t reach_h, size_t reach_w)
{
    return conv->padding_top || conv->padding_left ||
           (conv->output_height - 1) * conv->stride_height + reach_h > conv->input_height ||
           (conv->output_width - 1) * conv->stride_width + reach_w > conv->input_width;
}

/* The stripes of each of some images for several threads: of at most `most` lines, better of `least`
 * or more, about four a thread, and so many that every thread has the same number of them. */
static size_t shared_out(size_t images, size_t lines, size_t most, size_t least, size_t threads)
{
    const size_t wanted = pk_divide_up(images * lines, 4 * threads);
    const size_t count = pk_divide_up(lines, pk_min(pk_min(most, pk_max(wanted, least)), lines));
    if (images * count % threads == 0)
        return count;
    const size_t more = pk_round_up(count, threads), fewer = more - threads;
    if (fewer && lines / more < least && pk_divide_up(lines, fewer) <= most)
        return fewer;
    return more <= lines && (fewer || lines / more >= least) ? more : count;
}

struct pk_qs8_plan pk_qs8_plan_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    struct pk_qs8_plan p;
    const int point = conv->kernel_height == 1 && conv->kernel_width == 1;
    const size_t channels = conv->groups * conv->group_input;
    const size_t outputs = conv->groups * conv->group_output;
    p.flat = (int)conv->flat;
    p.form = pk_qs8_form_of(conv, k);
    size_t reach_h = (conv->kernel_height - 1) * conv->dilation_height + 1;
    const size_t reach_w = (conv->kernel_width - 1) * conv->dilation_width + 1;
    const int images_dynamic = p.form == PK_QS8_DYNAMIC && !p.flat;
    p.copied = p.form == PK_QS8_PREPARED || (images_dynamic && reaches_out(conv, reach_h, reach_w));
    /* Of a 1x1 kernel with strides the copy has the pixels that it reads, and no others. */
    p.step_height = point && p.copied ? 1 : conv->stride_height;
    p.step_width = point && p.copied ? 1 : conv->stride_width;
    const size_t images = p.flat ? 1 : conv->batch;
    const size_t lines = p.flat ? conv->batch * conv->output_height * conv->output_width
                                : conv->output_height;
    const size_t pixels = p.flat ? 1 : conv->output_width; /* of an output line */
    p.width = p.flat ? 1 : (conv->output_width - 1) * p.step_width + reach_w;
    if (images_dynamic && !p.copied)
        p.width = conv->input_width;
    const size_t line = p.width * channels * k->element; /* bytes */
    /* Half of the cache for a stripe's input and output. */
    const size_t budget = pk_max(conv->cache / 2, (size_t)64 << 10);
    p.apart = 1;
    if (p.copied && conv->dilation_height > 1 && reach_h * line > budget) {
        /* One line of output at a time, and of the input the lines that it needs. */
        p.apart = conv->dilation_height;
        reach_h = conv->kernel_height;
    }
    const size_t each = p.step_height * line + pixels * outputs;
    const size_t fixed = reach_h * line;
    size_t stripe = budget > fixed + each ? (budget - fixed) / each : 1;
    stripe = p.apart > 1 ? 1 : pk_max(stripe, pk_divide_up(2 * k->rows, pixels));
    /* A few stripes a thread, but not many more copies of the lines that stripes share. */
    const size_t least = pk_max(pk_divide_up(4 * k->rows, pixels), 2 * reach_h);
    p.per_image = pk_divide_up(lines, pk_max(pk_min(stripe, lines), 1));
    if (conv->threads > 1 && lines)
        p.per_image = shared_out(images, lines, stripe, least, conv->threads);
    p.unit = p.flat && p.per_image && lines / p.per_image >= 2 * k->rows ? k->rows : 1;
    stripe = p.per_image ? pk_divide_up(lines, p.per_image) : 1;
    if (p.unit > 1)
        stripe = pk_min(stripe + p.unit, lines); /* at most */
    p.lines = lines;
    p.stripe = stripe;
    p.stripes = images * p.per_image;
    p.prepared = p.flat ? stripe : (stripe - 1) * p.step_height + reach_h;
    p.rows = p.copied ? pk_round_up(p.prepared * line + PK_QS8_SLACK, PK_ALIGNMENT) : 0;
    p.corrections = p.rows + pk_round_up(stripe * pixels * sizeof(void *), PK_ALIGNMENT);
    p.slot = p.corrections;
    if (p.form == PK_QS8_SIGNED)
        p.slot += pk_round_up(stripe * pixels * sizeof(int32_t), PK_ALIGNMENT);
    if (images_dynamic)
        p.slot += pk_round_up(stripe * pixels * sizeof(struct pk_qd8_row), PK_ALIGNMENT);
    const size_t tiles = pk_divide_up(stripe * pixels, k->rows);
    const int wide = k->wide && tiles >= 4;
    p.own = 0;
    if (wide && by_own_products(conv, k, p.copied)) {
        p.own = p.slot;
        p.slot += pk_round_up(stripe * pixels * sizeof(int32_t), PK_ALIGNMENT);
    }
    p.splits = 1;
    if (conv->threads > 1 && p.stripes < 2 * conv->threads) {
        const size_t panels = conv->groups * pk_divide_up(conv->group_output, k->lanes * k->panels);
        p.splits = pk_divide_up(4 * conv->threads, pk_max(p.stripes, 1));
        if (p.stripes % conv->threads)
            p.splits = pk_round_up(p.splits, conv->threads);
        p.splits = pk_min(p.splits, panels);
    }
    if (p.splits > 1)
        p.slots = p.stripes;
    else
        p.slots = pk_min(p.stripes, conv->threads > 1 ? 4 * conv->threads : 1);
    p.wide = wide ? k->panels * wide_size(conv, k) : 0;
    p.tasks = p.splits > 1 ? p.stripes * p.splits : p.slots;
    return p;
}
