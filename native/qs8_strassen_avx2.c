/* Products of many rows with int8 weights by Strassen's algorithm with AVX2. See qs8_strassen_plan.h.
 * The outer level is `i`, the inner one `j`. */
#include "qs8_strassen_plan.h"

#define ROWS 4
#define FLIP 0

#include "qs8_multiply_avx2.h"
#include "qs8_put_256.h"
#include "qs8_strassen_blocks.h"

/* The first quad of chunk `index`. */
static size_t quad_of(const struct pk_qs8_strassen_plan *p, size_t index)
{
    return pk_part_begin(p->quads, p->chunks, 1, index);
}

struct work {
    const struct pk_qs8_conv *conv;
    const struct pk_qs8_product *product;
    struct pk_qs8_layout l;
    struct pk_qs8_strassen_plan p;
    size_t rows;
    size_t first, count; /* quads of the chunk */
    size_t parts;        /* in which it is transformed */
    int16_t *left;
    int32_t *own; /* of each quad, by rows and blocks of outputs */
    char *slots;
};

/* One quad. `wide`: the values are int16. */
PK_INLINE void transform_quad(const struct work *w, size_t quad, const int wide)
{
    const size_t depth = w->p.depth, step = w->p.left_step, inputs = w->conv->group_input;
    const char *rows[4];
    PK_UNROLL
    for (size_t y = 0; y < 4; y++) /* of what is no row the outputs are not stored */
        rows[y] = (const char *)w->product->values +
                  pk_min(4 * (w->first + quad) + y, w->rows - 1) * inputs * (wide ? 2 : 1);
    int16_t *const to = w->left + quad * depth;
    for (size_t k = 0; k < depth; k += 16) {
        const size_t at = pk_min(k, depth - 16);
        __m256i inner[4][7];
        PK_UNROLL
        for (int block = 0; block < 4; block++) {
            __m256i a[4];
            PK_UNROLL
            for (int i = 0; i < 4; i++) {
                const char *const row = rows[block / 2 * 2 + i / 2];
                const size_t value = (size_t)(block % 2 * 2 + i % 2) * depth + at;
                a[i] = wide ? _mm256_loadu_si256((const __m256i *)(row + 2 * value))
                            : _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(row + value)));
            }
            PK_UNROLL
            for (int j = 0; j < 7; j++)
                inner[block][j] = left_factor(j, a);
        }
        PK_UNROLL
        for (int j = 0; j < 7; j++) {
            const __m256i a[4] = {inner[0][j], inner[1][j], inner[2][j], inner[3][j]};
            PK_UNROLL
            for (int i = 0; i < 7; i++)
                _mm256_storeu_si256((__m256i *)(to + (size_t)(7 * i + j) * step + at),
                                    left_factor(i, a));
        }
    }
}

/* Fetches part `index` of `count` of the weights of `group`: read only when they are needed, they
 * would be waited for. */
static void fetch(const struct work *w, size_t group, size_t index, size_t count)
{
    const size_t first = pk_min(8 * group, w->l.panels);
    const size_t size = pk_min(8, w->l.panels - first) * w->l.panel;
    const char *const from = (const char *)w->product->packed + first * w->l.panel;
    for (size_t at = size * index / count / 64; at < size * (index + 1) / count / 64; at++)
        _mm_prefetch(from + at * 64, _MM_HINT_T1);
}

/* What the own products of a quad's factors put into its outputs. */
static void own_of_quad(const struct work *w, size_t quad)
{
    const struct pk_qs8_strassen_plan *p = &w->p;
    const int16_t *const factors = w->left + quad * p->depth;
    __m256i inner[4][7], out[4][4];
    for (size_t i = 0; i < 7; i++) {
        __m256i products[7], blocks[4];
        for (size_t j = 0; j < 7; j++)
            products[j] = pk_own_of_row(factors + (7 * i + j) * p->left_step, p->depth / 2);
        join(products, blocks);
        for (size_t block = 0; block < 4; block++)
            inner[block][i] = blocks[block];
    }
    for (size_t block = 0; block < 4; block++) {
        __m256i blocks[4];
        join(inner[block], blocks);
        for (size_t o = 0; o < 4; o++)
            out[o / 2 * 2 + block / 2][o % 2 * 2 + block % 2] = blocks[o];
    }
    for (size_t r = 0; r < 4; r++)
        _mm_storeu_si128((__m128i *)(w->own + quad * 16 + r * 4), pk_sums_of_lanes(out[r]));
}

static void left_task(void *context, size_t index)
{
    const struct work *w = context;
    const size_t end = w->count * (index + 1) / w->parts;
    for (size_t quad = w->count * index / w->parts; quad < end; quad++) {
        fetch(w, 0, quad, w->count);
        if (w->conv->dynamic)
            transform_quad(w, quad, 1);
        else
            transform_quad(w, quad, 0);
        own_of_quad(w, quad);
    }
}

/* The seven blocks of outer factor `i`. */
PK_INLINE void transform_right(const int i, const char *const panels[8],
                               const struct pk_qs8_strassen_plan *p, int16_t *to)
{
    /* What a loop reads of a struct it reads each time anew, as vectors are stored meanwhile. */
    const size_t pairs = p->depth / 2, quarter = pairs * 16, step = p->right_step;
    for (int panel = 0; panel < 2; panel++, to += 16) {
        const char *columns[4] = {panels[panel], panels[2 + panel], panels[4 + panel],
                                  panels[6 + panel]};
        int16_t *out = to;
        for (size_t k = 0; k < pairs; k++, out += 32) {
            __m256i inner[4];
            outer_right(i, columns, quarter, 0, inner);
            PK_UNROLL
            for (size_t j = 0; j < 7; j++)
                _mm256_storeu_si256((__m256i *)(out + j * step), right_factor((int)j, inner));
            PK_UNROLL
            for (int c = 0; c < 4; c++)
                columns[c] += 16;
        }
    }
}

static void right_blocks(int i, const char *const panels[8], const struct pk_qs8_strassen_plan *p,
                         int16_t *to)
{
    switch (i) {
    case 0:
        transform_right(0, panels, p, to);
        break;
    case 1:
        transform_right(1, panels, p, to);
        break;
    case 2:
        transform_right(2, panels, p, to);
        break;
    case 3:
        transform_right(3, panels, p, to);
        break;
    case 4:
        transform_right(4, panels, p, to);
        break;
    case 5:
        transform_right(5, panels, p, to);
        break;
    default:
        transform_right(6, panels, p, to);
    }
}

/* A block of the left matrix by one of the right. */
static void multiply(const int16_t *left, size_t rows, size_t depth, const int16_t *right,
                     int32_t *to)
{
    size_t r = 0;
    for (; r + 4 <= rows; r += 4)
        pk_multiply_rows(4, left + r * depth, depth, right, depth / 2, to + r * 16);
    if (rows - r >= 2) {
        pk_multiply_rows(2, left + r * depth, depth, right, depth / 2, to + r * 16);
        r += 2;
    }
    if (rows - r)
        pk_multiply_rows(1, left + r * depth, depth, right, depth / 2, to + r * 16);
}

PK_INLINE void put(const struct pk_qs8_tile *t, size_t row, const int rows, const int panels,
                   __m256i sums[ROWS][PANELS], const int dynamic)
{
    if (dynamic) {
        put_floats(t, row, rows, panels, sums);
        return;
    }
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const __m256i bias =
            _mm256_load_si256((const __m256i *)((const char *)t->panel + (size_t)p * t->panel_size));
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            sums[r][p] = _mm256_add_epi32(sums[r][p], bias);
    }
    put_bytes(t, row, rows, panels, sums);
}

/* Up to four rows of a block of 16 channels, as many as there are. */
PK_INLINE void put_block(const struct pk_qs8_tile *t, size_t row, size_t rows,
                         __m256i sums[ROWS][PANELS], const int dynamic)
{
    if (rows >= ROWS && t->channels > LANES) {
        put(t, row, ROWS, 2, sums, dynamic);
        return;
    }
    for (size_t r = 0; r < pk_min(rows, ROWS); r++) {
        __m256i one[ROWS][PANELS] = {{sums[r][0], sums[r][1]}};
        if (t->channels > LANES)
            put(t, row + r, 1, 2, one, dynamic);
        else
            put(t, row + r, 1, 1, one, dynamic);
    }
}

/* The outputs of a group, of the quads from `first` to `end` of the chunk. */
PK_INLINE void put_group(const struct work *w, size_t group, size_t first, size_t end,
                         const int32_t *sums, const int dynamic)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t outputs = conv->group_output, step = w->p.sums_step;
    struct pk_qs8_tile tiles[4] = {{0}};
    const char *own[4]; /* of the channels */
    for (size_t x = 0; x < 4; x++) {
        const size_t channel = group * PK_STRASSEN_CHANNELS + x * 16;
        tiles[x] = (struct pk_qs8_tile){
            .panel = (const char *)w->product->packed + channel / LANES * w->l.panel,
            .panel_size = w->l.panel, .output_stride = outputs,
            .output = (char *)w->product->output + channel * (dynamic ? sizeof(float) : 1),
            .channels = channel < outputs ? pk_min(16, outputs - channel) : 0,
            .zero_point = conv->output_zero_point, .min = conv->output_min,
            .max = conv->output_max, .dynamic = w->product->rows,
            .float_min = w->product->min, .float_max = w->product->max,
        };
    }
    for (size_t x = 0; x < 4; x++)
        own[x] = (const char *)tiles[x].panel + w->l.panel - STRASSEN_OWN;
    for (size_t quad = first; quad < end; quad++, sums += 16) {
        const int32_t *const own_of_rows = w->own + quad * 16;
        __m256i out[4][4][2]; /* rows, blocks, panels */
        for (int p = 0; p < 2; p++) {
            __m256i inner[4][7];
            PK_UNROLL
            for (int i = 0; i < 7; i++) {
                __m256i products[7], blocks[4];
                PK_UNROLL
                for (int j = 0; j < 7; j++)
                    products[j] = _mm256_loadu_si256(
                        (const __m256i *)(sums + (size_t)(7 * i + j) * step + p * LANES));
                join(products, blocks);
                PK_UNROLL
                for (int block = 0; block < 4; block++)
                    inner[block][i] = blocks[block];
            }
            PK_UNROLL
            for (int block = 0; block < 4; block++) {
                __m256i blocks[4];
                join(inner[block], blocks);
                PK_UNROLL
                for (int o = 0; o < 4; o++)
                    out[o / 2 * 2 + block / 2][o % 2 * 2 + block % 2][p] = blocks[o];
            }
        }
        const size_t row = 4 * (w->first + quad);
        for (size_t x = 0; x < 4 && tiles[x].channels; x++) {
            /* There may be no second panel. */
            const size_t next = tiles[x].channels > LANES ? w->l.panel : 0;
            __m256i tile[ROWS][PANELS];
            PK_UNROLL
            for (size_t r = 0; r < ROWS; r++) {
                const __m256i own_of_row = _mm256_set1_epi32(own_of_rows[r * 4 + x]);
                PK_UNROLL
                for (size_t p = 0; p < 2; p++) {
                    const char *const of_channels = own[x] + p * next + r * LANES * 4;
                    tile[r][p] = _mm256_sub_epi32(
                        out[r][x][p],
                        _mm256_add_epi32(own_of_row,
                                         _mm256_load_si256((const __m256i *)of_channels)));
                }
            }
            put_block(&tiles[x], row, w->rows - row, tile, dynamic);
        }
    }
}

/* The quads from `first` to `end` of the chunk by the weights of a group. */
static void multiply_group(const struct work *w, size_t group, size_t first, size_t end,
                           int16_t *right, int32_t *sums)
{
    const struct pk_qs8_strassen_plan *p = &w->p;
    const char *panels[8];
    panels_of(&w->l, w->product->packed, group, panels);
    for (int i = 0; i < 7; i++) {
        right_blocks(i, panels, p, right);
        for (int j = 0; j < 7; j++) {
            const size_t block = (size_t)(7 * i + j);
            fetch(w, group + 1, block, PK_STRASSEN_PRODUCTS);
            multiply(w->left + block * p->left_step + first * p->depth, end - first, p->depth,
                     right + (size_t)j * p->right_step, sums + block * p->sums_step);
        }
    }
    if (w->conv->dynamic)
        put_group(w, group, first, end, sums, 1);
    else
        put_group(w, group, first, end, sums, 0);
}

static void groups_task(void *context, size_t index)
{
    const struct work *w = context;
    const struct pk_qs8_strassen_plan *p = &w->p;
    int16_t *const right = (int16_t *)(w->slots + index * (p->right + p->sums));
    int32_t *const sums = (int32_t *)((char *)right + p->right);
    const size_t all = p->groups * p->shares, end = all * (index + 1) / p->slots;
    for (size_t i = all * index / p->slots; i < end; i++) {
        const size_t share = i % p->shares;
        multiply_group(w, i / p->shares, w->count * share / p->shares,
                       w->count * (share + 1) / p->shares, right, sums);
    }
}

/* Chunks from the first to the last, with what is the task's own. */
static void chunks_task(void *context, size_t index)
{
    struct work w = *(const struct work *)context;
    const struct pk_qs8_strassen_plan *p = &w.p;
    w.left = (int16_t *)((char *)w.left + index * (p->left + p->own));
    w.own = (int32_t *)((char *)w.left + p->left);
    int16_t *const right = (int16_t *)(w.slots + index * (p->right + p->sums));
    const size_t end = p->chunks * (index + 1) / p->slots;
    for (size_t chunk = p->chunks * index / p->slots; chunk < end; chunk++) {
        w.first = quad_of(p, chunk);
        w.count = quad_of(p, chunk + 1) - w.first;
        left_task(&w, 0);
        for (size_t group = 0; group < p->groups; group++)
            multiply_group(&w, group, 0, w.count, right, (int32_t *)((char *)right + p->right));
    }
}

void pk_qs8_strassen_run(const struct pk_qs8_conv *conv, const struct pk_qs8_product *product,
                         const struct pk_pool *pool)
{
    struct work w = {.conv = conv, .product = product, .p = pk_qs8_strassen_plan_of(conv)};
    w.left = product->scratch;
    w.l = pk_qs8_layout_of(conv, &pk_qs8_avx2);
    w.rows = conv->batch * conv->output_height * conv->output_width;
    w.own = (int32_t *)((char *)w.left + w.p.left);
    w.slots = (char *)product->scratch + w.p.lefts * (w.p.left + w.p.own);
    w.parts = 1;
    if (w.p.lefts > 1) {
        pk_parallelize(pool, chunks_task, &w, w.p.slots);
        return;
    }
    for (size_t chunk = 0; chunk < w.p.chunks; chunk++) {
        w.first = quad_of(&w.p, chunk);
        w.count = quad_of(&w.p, chunk + 1) - w.first;
        w.parts = conv->threads > 1 ? pk_min(w.count, 2 * conv->threads) : 1;
        pk_parallelize(pool, left_task, &w, w.parts);
        pk_parallelize(pool, groups_task, &w, w.p.slots);
    }
}
