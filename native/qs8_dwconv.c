/* int8 depthwise convolution: packing, and how the work is cut. See qs8_dwconv.h. */
#include "qs8_dwconv.h"

#include <string.h>

static const struct pk_qs8_dwkernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VNNI)
        return &pk_qs8_dw_avx512vnni;
    if (isa & PK_ISA_AVXVNNI)
        return &pk_qs8_dw_avxvnni;
    if (isa & PK_ISA_AVX2)
        return &pk_qs8_dw_avx2;
#elif PK_ARM
    if (isa & PK_ISA_DOTPROD)
        return &pk_qs8_dw_dotprod;
    if (isa & PK_ISA_NEON)
        return &pk_qs8_dw_neon;
#endif
    (void)isa;
    return &pk_qs8_dw_scalar;
}

/* The block of channels from `offset` on: its index among the kernel's widths. */
static size_t block_at(const struct pk_qs8_dwkernels *k, size_t channels, size_t offset)
{
    for (size_t i = 0; i < 2; i++)
        if (channels - offset >= k->widths[i])
            return i;
    return 2;
}

/* Whether the taps of the only row are interleaved, as those of a column. */
static int lies(const struct pk_qs8_dwconv *d)
{
    return d->kernel_height == 1;
}

/* Rows and columns of taps, as they are interleaved. */
static size_t height_of(const struct pk_qs8_dwconv *d)
{
    return lies(d) ? d->kernel_width : d->kernel_height;
}

static size_t width_of(const struct pk_qs8_dwconv *d)
{
    return lies(d) ? 1 : d->kernel_width;
}

static size_t groups_of(const struct pk_qs8_dwconv *d, const struct pk_qs8_dwkernels *k)
{
    return pk_divide_up(height_of(d), k->depth);
}

/* Bytes of a packed block: bias and scale, then of each group of rows and each column the weights. */
static size_t block_size(const struct pk_qs8_dwconv *d, const struct pk_qs8_dwkernels *k,
                         size_t width)
{
    return width * (8 + groups_of(d, k) * width_of(d) * k->depth * k->weight);
}

size_t pk_qs8_dwconv_packed_size(const struct pk_qs8_dwconv *d)
{
    const struct pk_qs8_dwkernels *k = kernels_for(d->isa);
    size_t size = 0;
    for (size_t c = 0; c < d->channels;) {
        const size_t width = k->widths[block_at(k, d->channels, c)];
        size += block_size(d, k, width);
        c += width;
    }
    return size;
}

void pk_qs8_dwconv_pack(const struct pk_qs8_dwconv *d, const int8_t *weights, const int32_t *bias,
                        const float *scale, void *packed)
{
    const struct pk_qs8_dwkernels *k = kernels_for(d->isa);
    const uint32_t correction = (uint32_t)(d->input_zero_point + k->flip);
    const size_t rows = height_of(d), columns = width_of(d);
    char *to = packed;
    for (size_t c = 0; c < d->channels;) {
        const size_t width = k->widths[block_at(k, d->channels, c)];
        const size_t size = block_size(d, k, width);
        memset(to, 0, size);
        int32_t *const biases = (int32_t *)to;
        float *const scales = (float *)(biases + width);
        int8_t *const taps = (int8_t *)(scales + width);
        for (size_t at = 0; at < width; at++) {
            const size_t channel = c + k->channel(width, at);
            if (channel >= d->channels)
                continue;
            uint32_t sum = 0;
            for (size_t y = 0; y < rows; y++) {
                for (size_t x = 0; x < columns; x++) {
                    const int8_t w = weights[(y * columns + x) * d->channels + channel];
                    const size_t column = y / k->depth * columns + x;
                    const size_t i = (column * width + at) * k->depth + y % k->depth;
                    sum += (uint32_t)w;
                    if (k->weight == 2)
                        ((int16_t *)taps)[i] = w;
                    else
                        taps[i] = w;
                }
            }
            biases[at] = (int32_t)((bias ? (uint32_t)bias[channel] : 0) - sum * correction);
            scales[at] = scale[channel];
        }
        to += size;
        c += width;
    }
}

/* A pixel of padding, with room for reading a whole block. */
size_t pk_qs8_dwconv_scratch_size(const struct pk_qs8_dwconv *d)
{
    return pk_round_up(d->channels, PK_ALIGNMENT) + PK_ALIGNMENT;
}

struct work {
    const struct pk_qs8_dwconv *d;
    const struct pk_qs8_dwkernels *k;
    const char *packed;
    const int8_t *input, *padding;
    int8_t *output;
    size_t lines, chunks;
    int shared;
};

/* Output pixels of a line whose columns of the input are looked up together, fewer where kernels of
 * many taps would need more of the stack. */
static size_t segment_of(const struct pk_qs8_dwconv *d, const struct pk_qs8_dwkernels *k)
{
    const size_t taps = groups_of(d, k) * k->depth * width_of(d);
    return pk_min(32, pk_max(8192 / taps, 1));
}

/* The pixels that `count` columns of taps read, `height` of each column, from column `first` of the
 * padded input on. `lines`: of each row of taps the line of the input, NULL for padding. */
static void look_up(const struct work *w, const int8_t *const *lines, size_t height, size_t first,
                    size_t count, const int8_t **rows)
{
    const struct pk_qs8_dwconv *d = w->d;
    const size_t left = d->padding_left, right = left + d->input_width;
    const size_t begin = pk_min(pk_max(first, left), first + count);
    const size_t end = pk_max(pk_min(first + count, right), begin);
    for (size_t y = 0; y < height; y++) {
        const int8_t **to = rows + y;
        const int8_t *line = y < d->kernel_height ? lines[y] : NULL;
        size_t c = first;
        for (; c < begin; c++, to += height)
            *to = w->padding;
        const int8_t *from = line ? line + (c - left) * d->channels : w->padding;
        const size_t step = line ? d->channels : 0;
        for (; c < end; c++, to += height, from += step)
            *to = from;
        for (; c < first + count; c++, to += height)
            *to = w->padding;
    }
}

/* The same where the taps of a line are interleaved: a column for each of `count` outputs. */
static void look_up_lying(const struct work *w, const int8_t *line, size_t height, size_t x,
                          size_t count, const int8_t **rows)
{
    const struct pk_qs8_dwconv *d = w->d;
    for (size_t o = 0; o < count; o++, rows += height) {
        size_t at = (x + o) * d->stride_width - d->padding_left; /* wraps around below 0 */
        for (size_t i = 0; i < height; i++, at += d->dilation_width) {
            const int there = line && i < d->kernel_width && at < d->input_width;
            rows[i] = there ? line + at * d->channels : w->padding;
        }
    }
}

static void run_block(const struct work *w, const int8_t *const *rows, size_t outputs,
                      size_t output_step, size_t tap_step, int8_t *output)
{
    const struct pk_qs8_dwconv *d = w->d;
    const struct pk_qs8_dwkernels *k = w->k;
    struct pk_qs8_dwblock block = {
        .rows = rows, .groups = groups_of(d, k), .kernel_width = width_of(d),
        .output_step = output_step, .tap_step = tap_step,
        .output_stride = d->channels,
        .zero_point = d->output_zero_point, .min = d->output_min, .max = d->output_max,
    };
    const char *packed = w->packed;
    for (size_t c = 0; c < d->channels;) {
        const size_t i = block_at(k, d->channels, c), width = k->widths[i];
        block.offset = c;
        block.channels = pk_min(width, d->channels - c);
        block.packed = packed;
        block.output = output + c;
        k->runs[i](&block, outputs, d->stride_width, w->shared);
        packed += block_size(d, k, width);
        c += width;
    }
}

static void run_segment(const struct work *w, const int8_t *const *lines, size_t x, size_t count,
                        int8_t *output)
{
    const struct pk_qs8_dwconv *d = w->d;
    const size_t height = groups_of(d, w->k) * w->k->depth;
    /* All columns from the first to the last, or those of each output, whichever are fewer. */
    const size_t reach = (count - 1) * d->stride_width + (d->kernel_width - 1) * d->dilation_width + 1;
    const int all = w->shared || reach <= count * d->kernel_width;
    const size_t output_step = lies(d) ? 1 : all ? d->stride_width : d->kernel_width;
    const size_t tap_step = all ? d->dilation_width : 1;
    const size_t columns = lies(d) ? count : all ? reach : count * d->kernel_width;
    const int8_t *rows[columns * height];
    if (lies(d))
        look_up_lying(w, lines[0], height, x, count, rows);
    else if (all)
        look_up(w, lines, height, x * d->stride_width, columns, rows);
    else
        for (size_t c = 0; c < columns; c++)
            look_up(w, lines, height,
                    (x + c / d->kernel_width) * d->stride_width +
                        c % d->kernel_width * d->dilation_width,
                    1, rows + c * height);
    for (size_t done = 0; done < count;) {
        size_t outputs = w->k->outputs;
        while (outputs > count - done)
            outputs /= 2;
        run_block(w, rows + done * output_step * height, outputs, output_step, tap_step,
                  output + done * d->channels);
        done += outputs;
    }
}

static void lines_task(void *context, size_t index)
{
    const struct work *w = context;
    const struct pk_qs8_dwconv *d = w->d;
    const size_t end = w->lines * (index + 1) / w->chunks;
    const size_t segment = segment_of(d, w->k);
    const int8_t *lines[d->kernel_height];
    for (size_t line = w->lines * index / w->chunks; line < end; line++) {
        const size_t image = line / d->output_height, y = line % d->output_height;
        for (size_t i = 0; i < d->kernel_height; i++) {
            const ptrdiff_t at = (ptrdiff_t)(y * d->stride_height + i * d->dilation_height) -
                                 (ptrdiff_t)d->padding_top;
            lines[i] = at < 0 || (size_t)at >= d->input_height
                           ? NULL
                           : w->input + (image * d->input_height + (size_t)at) * d->input_width *
                                            d->channels;
        }
        int8_t *const out = w->output + line * d->output_width * d->channels;
        for (size_t x = 0; x < d->output_width; x += segment)
            run_segment(w, lines, x, pk_min(segment, d->output_width - x), out + x * d->channels);
    }
}

void pk_qs8_dwconv_run(const struct pk_qs8_dwconv_task *task, const struct pk_pool *pool)
{
    const struct pk_qs8_dwconv *d = &task->conv;
    struct work w = {.d = d, .k = kernels_for(d->isa), .packed = task->packed,
                     .input = task->input, .padding = task->scratch, .output = task->output,
                     .shared = pk_qs8_dwconv_shared(d)};
    memset(task->scratch, d->input_zero_point, d->channels + PK_ALIGNMENT);
    w.lines = d->batch * d->output_height;
    w.chunks = pk_min(w.lines, d->threads > 1 ? 8 * d->threads : 1);
    pk_parallelize(pool, lines_task, &w, w.chunks);
}

const char *pk_qs8_dwconv_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
