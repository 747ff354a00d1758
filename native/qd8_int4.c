/* Products of rows quantized at run time with int4 weights: packing, and how the work is cut. See
 * qd8_int4.h. */
#include "qd8_int4.h"
#include "qs8_parts.h"

#include <string.h>

static const struct pk_qd8_int4_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VNNI)
        return &pk_qd8_int4_avx512vnni;
    if (isa & PK_ISA_AVXVNNI)
        return &pk_qd8_int4_avxvnni;
    if (isa & PK_ISA_AVX2)
        return &pk_qd8_int4_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_qd8_int4_bytes;
#endif
    (void)isa;
    return &pk_qd8_int4_scalar;
}

struct layout {
    size_t chunks, blocks;
    size_t group, before; /* chunks of a group; bytes of scales before them */
    size_t group_size;    /* bytes of both */
    size_t panel, panels; /* bytes of a panel; their number */
};

/* With scales of channels a panel is one group. */
static struct layout layout_of(const struct pk_qd8_int4 *p, const struct pk_qd8_int4_kernels *k)
{
    struct layout l;
    const size_t chunk = pk_qd8_int4_chunk(k->lanes, p->bits);
    l.chunks = pk_divide_up(p->inputs, PK_INT4_CHUNK);
    l.blocks = p->block ? p->inputs / p->block : 0;
    l.group = p->block ? pk_qd8_int4_group(k->lanes) * (p->block / PK_INT4_CHUNK) : l.chunks;
    l.before = p->block ? PK_ALIGNMENT : 0;
    l.group_size = l.before + l.group * chunk;
    l.panel = pk_qd8_int4_header(k->lanes) + pk_divide_up(l.chunks, l.group) * l.before +
              l.chunks * chunk;
    l.panels = pk_divide_up(p->outputs, k->lanes);
    return l;
}

size_t pk_qd8_int4_packed_size(const struct pk_qd8_int4 *product)
{
    const struct layout l = layout_of(product, kernels_for(product->isa));
    return l.panels * l.panel;
}

/* A channel's weights, `step` bytes from vector to vector. */
static void pack_channel(const uint8_t *from, size_t bytes, size_t step, uint8_t flip, char *to)
{
    uint8_t rest[16];
    for (size_t at = 0; at < bytes; at += 16) {
        const uint8_t *b = from + at;
        if (bytes - at < 16) {
            memset(rest, 0x88, sizeof rest);
            memcpy(rest, b, bytes - at);
            b = rest;
        }
        for (int v = 0; v < 4; v++, b += 4, to += step) {
            const uint32_t x = b[0] | (uint32_t)b[1] << 16, y = b[2] | (uint32_t)b[3] << 16;
            const uint32_t even = (x & 0x0f000f) | (y & 0x0f000f) << 4;
            const uint32_t odd = (x >> 4 & 0x0f000f) | (y & 0xf000f0);
            const uint32_t dword = (even | odd << 8) ^ flip * 0x01010101u;
            memcpy(to, &dword, 4);
        }
    }
}

/* Of 8 bytes: halves that are added in each are at most 30, all of them 240. */
PK_INLINE uint32_t sum_of_8(const uint8_t *from)
{
    uint64_t x;
    memcpy(&x, from, 8);
    const uint64_t low = 0x0f0f0f0f0f0f0f0f;
    return (uint32_t)(((x & low) + (x >> 4 & low)) * 0x0101010101010101 >> 56);
}

/* A channel's weights of 6 bits, `step` bytes from vector to vector. */
static void pack_channel6(const int8_t *from, size_t count, size_t step, uint8_t flip, char *to)
{
    int8_t rest[PK_INT4_CHUNK];
    for (size_t at = 0; at < count; at += PK_INT4_CHUNK, to += 6 * step) {
        const int8_t *eight = from + at;
        if (count - at < PK_INT4_CHUNK) {
            memset(rest, 0, sizeof rest);
            memcpy(rest, eight, count - at);
            eight = rest;
        }
        uint32_t low[2] = {0, 0};
        for (int v = 0; v < 4; v++, eight += 8) {
            uint64_t x;
            memcpy(&x, eight, 8);
            x = (x & 0x3f3f3f3f3f3f3f3f) ^ 0x2020202020202020; /* 0 .. 63 */
            const uint64_t upper = x >> 2 & 0x0f0f0f0f0f0f0f0f, lower = x & 0x0303030303030303;
            const uint32_t high = ((uint32_t)upper | (uint32_t)(upper >> 32) << 4) ^ flip * 0x01010101u;
            memcpy(to + (size_t)(v + 2) * step, &high, 4);
            low[v / 2] |= ((uint32_t)lower | (uint32_t)(lower >> 32) << 2) << v % 2 * 4;
        }
        memcpy(to, &low[0], 4);
        memcpy(to + step, &low[1], 4);
    }
}

static int32_t sum_of6(const int8_t *from, size_t count)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += from[i];
    return sum;
}

static int32_t sum_of(const uint8_t *from, size_t bytes)
{
    uint32_t sum = 0;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8)
        sum += sum_of_8(from + i);
    for (; i < bytes; i++)
        sum += (from[i] & 15u) + (from[i] >> 4);
    return (int32_t)(sum - 16 * (uint32_t)bytes);
}

static float as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The sum of a channel's weights, each times its scale. */
static float sum_of_blocks(const uint8_t *from, const uint16_t *scales, size_t blocks, size_t bytes)
{
    float sum = 0;
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < bytes; i += 8, from += 8)
            sum += (float)((int32_t)sum_of_8(from) - 128) * as_float((uint32_t)scales[b] << 16);
    return sum;
}

void pk_qd8_int4_pack(const struct pk_qd8_int4 *product, const uint8_t *weights, const float *bias,
                      const void *scale, void *packed)
{
    const struct pk_qd8_int4_kernels *k = kernels_for(product->isa);
    const struct layout l = layout_of(product, k);
    const size_t six = product->bits == 6, bytes = six ? product->inputs : product->inputs / 2;
    const size_t each = pk_qd8_int4_group(k->lanes);
    const int32_t factor = six ? k->factor6 : k->factor;
    /* A bfloat16 times one over `factor`: a number taken from its exponent. */
    const uint16_t less = k->factor == 16 ? 4 << 7 : 0;
    char *to = packed;
    for (size_t p = 0; p < l.panels; p++, to += l.panel) {
        const size_t first = p * k->lanes, channels = pk_min(k->lanes, product->outputs - first);
        float *const sums = (float *)to, *const scales = sums + k->lanes;
        float *const biases = scales + k->lanes;
        memset(to, 0, l.panel);
        for (size_t c = 0; c < channels; c++) {
            const uint8_t *const from = weights + (first + c) * bytes;
            const uint16_t *const all = (const uint16_t *)scale + (first + c) * l.blocks;
            char *group = to + pk_qd8_int4_header(k->lanes);
            if (six)
                pack_channel6((const int8_t *)from, bytes, 4 * k->lanes, k->flip, group + 4 * c);
            for (size_t at = 0; !six && at < bytes; at += 16 * l.group, group += l.group_size)
                pack_channel(from + at, pk_min(16 * l.group, bytes - at), 4 * k->lanes, k->flip,
                             group + l.before + 4 * c);
            group = to + pk_qd8_int4_header(k->lanes);
            for (size_t b = 0; b < l.blocks; b++)
                ((uint16_t *)(group + b / each * l.group_size))[b % each * k->lanes + c] =
                    (uint16_t)(all[b] - less);
            biases[c] = bias ? bias[first + c] : 0;
            if (l.blocks) {
                sums[c] = sum_of_blocks(from, all, l.blocks, product->block / 2);
            } else {
                const int32_t sum = six ? sum_of6((const int8_t *)from, bytes) : sum_of(from, bytes);
                ((int32_t *)sums)[c] = sum * factor;
                scales[c] = ((const float *)scale)[first + c] / (float)factor;
            }
        }
    }
}

/* How the work is cut: in stripes of rows and parts of the panels. */
struct cut {
    size_t stripe, stripes, parts;
    size_t row_size;      /* bytes from row to row */
    size_t wide, wide_at; /* bytes of an unpacked panel, 0 if it is not; where they begin */
};

static struct cut cut_of(const struct pk_qd8_int4 *p, const struct pk_qd8_int4_kernels *k,
                         const struct layout *l)
{
    struct cut c;
    c.row_size = k->prepare ? l->chunks * PK_INT4_CHUNK : p->inputs;
    /* Half of the cache for the values of a stripe. */
    const size_t budget = pk_max(p->cache / 2, (size_t)64 << 10);
    c.stripe = pk_min(pk_max(budget / c.row_size, 4 * k->rows), p->rows);
    c.stripes = pk_divide_up(p->rows, c.stripe);
    c.stripe = pk_divide_up(p->rows, c.stripes);
    const size_t tasks = p->threads > 1 ? 4 * p->threads : 1;
    c.parts = pk_min(pk_divide_up(tasks, c.stripes), l->panels);
    c.wide_at = k->prepare ? pk_round_up(p->rows * c.row_size, PK_ALIGNMENT) : 0;
    c.wide = k->unpack && p->rows > k->rows ? l->chunks * k->lanes * PK_INT4_CHUNK : 0;
    return c;
}

size_t pk_qd8_int4_scratch_size(const struct pk_qd8_int4 *product)
{
    const struct pk_qd8_int4_kernels *k = kernels_for(product->isa);
    const struct layout l = layout_of(product, k);
    const struct cut c = cut_of(product, k, &l);
    return c.wide_at + c.stripes * c.parts * c.wide;
}

struct work {
    const struct pk_qd8_int4_task *task;
    const struct pk_qd8_int4_kernels *k;
    struct layout l;
    struct cut c;
};

/* Quantized values of a row. */
static const char *quantized(const struct work *w, size_t row)
{
    const struct pk_qd8_int4 *p = &w->task->product;
    return (const char *)w->task->input +
           pk_round_up(p->rows * sizeof(struct pk_qd8_row), PK_ALIGNMENT) +
           row * p->inputs * w->k->element;
}

static void prepare_row(void *context, size_t row)
{
    const struct work *w = context;
    w->k->prepare((char *)w->task->scratch + row * w->c.row_size, quantized(w, row),
                  w->task->product.inputs);
}

/* The weights of a panel, in scratch memory. */
static const char *unpacked(const struct work *w, const char *panel, char *to)
{
    const char *from = panel + pk_qd8_int4_header(w->k->lanes) + w->l.before;
    const size_t chunk = w->k->lanes * PK_INT4_CHUNK;
    const int six = w->task->product.bits == 6;
    for (size_t i = 0; i < w->l.chunks; i += w->l.group, from += w->l.group_size)
        (six ? w->k->unpack6 : w->k->unpack)(to + i * chunk, from, pk_min(w->l.group, w->l.chunks - i));
    return to;
}

static void multiply(void *context, size_t index)
{
    const struct work *w = context;
    const struct pk_qd8_int4 *p = &w->task->product;
    const struct layout *l = &w->l;
    const size_t stripe = index / w->c.parts, part = index % w->c.parts;
    const size_t first = stripe * w->c.stripe, rows = pk_min(w->c.stripe, p->rows - first);
    char *const scratch = w->task->scratch, *const wide = scratch + w->c.wide_at + index * w->c.wide;
    struct pk_qd8_int4_tile tile = {
        .values = w->k->prepare ? scratch + first * w->c.row_size : quantized(w, first),
        .row_size = w->c.row_size, .rows = (const struct pk_qd8_row *)w->task->input + first,
        .chunks = l->chunks, .block = p->block / PK_INT4_CHUNK, .bits = p->bits,
        .output_stride = p->outputs, .min = p->min, .max = p->max,
    };
    for (size_t n = l->panels * part / w->c.parts; n < l->panels * (part + 1) / w->c.parts; n++) {
        tile.panel = (const char *)w->task->packed + n * l->panel;
        if (w->c.wide)
            tile.unpacked = unpacked(w, tile.panel, wide);
        tile.channels = pk_min(w->k->lanes, p->outputs - n * w->k->lanes);
        tile.output = w->task->output + first * p->outputs + n * w->k->lanes;
        w->k->tiles(&tile, rows);
    }
}

void pk_qd8_int4_run(const struct pk_qd8_int4_task *task, const struct pk_pool *pool)
{
    const struct pk_qd8_int4 *p = &task->product;
    struct work w = {.task = task, .k = kernels_for(p->isa)};
    w.l = layout_of(p, w.k);
    w.c = cut_of(p, w.k, &w.l);
    if (w.k->prepare)
        for (size_t r = 0; r < p->rows; r++)
            prepare_row(&w, r);
    pk_parallelize(pool, multiply, &w, w.c.stripes * w.c.parts);
}

const char *pk_qd8_int4_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
