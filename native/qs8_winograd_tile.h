/* int8 convolution by Winograd's F(n x n, 3x3) with AVX2, for the files that include this: they define
 * OUT (n), OWN (bytes from a panel's own products for them to its end), CHUNK_BYTES (of the input that
 * is transformed at a time, from those of the second level of cache), MOST (tiles of it), and of one
 * dimension
 *
 *     input_line(d, t)            the SIDE numbers t of SIDE values of the input,
 *     weights_line(g0, g1, g2, u) those of three weights, scaled,
 *     output_line(m, y)           the OUT outputs of SIDE products,
 *     unscaled(y)                 an output of two dimensions without the weights' scale.
 *
 * Tiles of OUT x OUT outputs go in chunks. For a chunk the input is transformed once; then for each 16
 * output channels the weights are transformed, POSITIONS products are made (one for each position in
 * the transformed tiles), and the outputs are put together. See qs8_winograd.h.
 */
#include "qs8_multiply_avx2.h"
#include "qs8_winograd.h"
#include "store_tail.h"

#include <string.h>

#define LANES 8
#define ROWS 4 /* tiles that a product takes at a time */
#define SIDE (OUT + 2)
#define POSITIONS (SIDE * SIDE)
#define OUTPUTS (OUT * OUT)

/* The chunks' scratch memory, and how tiles lie in the image. With dilation d a tile has the outputs
 * (y, y + d, ...) x (x, x + d, ...). */
struct plan {
    size_t across, down, tiles; /* of an image, of an image, of all images */
    size_t chunks, shares;      /* of the outputs of a chunk */
    size_t depth;               /* input channels, rounded up to vectors */
    /* From one of the positions to the next, in elements: no multiples of the size of a way of the
     * cache, or they push each other out. */
    size_t input_step, weights_step, sums_step;
    size_t input, weights, sums, own, slot; /* bytes */
    size_t slots;
};

static struct plan plan_of(const struct pk_qs8_conv *conv)
{
    struct plan p;
    p.across = pk_qs8_tiles_along(OUT, conv->output_width, conv->dilation_width);
    p.down = pk_qs8_tiles_along(OUT, conv->output_height, conv->dilation_height);
    p.tiles = conv->batch * p.across * p.down;
    p.depth = pk_round_up(conv->group_input, 16);
    const size_t bytes = CHUNK_BYTES(pk_max(conv->cache, (size_t)256 << 10));
    size_t chunk = pk_max(bytes / (p.depth * POSITIONS * 2), 16);
    p.chunks = pk_divide_up(p.tiles, pk_min(chunk, MOST));
    p.shares = 1;
    /* The same number for every thread; not more, for each chunk has its own copy of the weights, and
     * where threads share the outputs of one each share its own copy of the input. */
    if (conv->threads > 1 && p.chunks == 1 && conv->group_output > p.tiles)
        p.shares = pk_min(conv->threads, pk_divide_up(conv->group_output, 2 * LANES));
    else if (conv->threads > 1)
        p.chunks = pk_min(pk_round_up(p.chunks, conv->threads), pk_divide_up(p.tiles, 2 * ROWS));
    chunk = pk_min(pk_divide_up(p.tiles, pk_max(p.chunks, 1)) + ROWS, p.tiles); /* at most */
    chunk = pk_round_up(chunk, ROWS);
    p.input_step = chunk * p.depth + 32;
    p.weights_step = conv->group_input * 2 * LANES + 32;
    p.sums_step = chunk * 2 * LANES + 16;
    p.input = pk_round_up(POSITIONS * p.input_step * 2, PK_ALIGNMENT);
    p.weights = pk_round_up(POSITIONS * p.weights_step * 2, PK_ALIGNMENT);
    p.sums = pk_round_up(POSITIONS * p.sums_step * 4, PK_ALIGNMENT);
    p.own = pk_round_up(chunk * OUTPUTS * 4, PK_ALIGNMENT);
    p.slot = p.input + p.weights + p.sums + p.own;
    p.slots = pk_min(p.chunks * p.shares, conv->threads > 1 ? 2 * conv->threads : 1);
    return p;
}

/* Pixels of padding lie before the slots. */
static size_t padding_size(const struct pk_qs8_conv *conv)
{
    return pk_round_up(conv->group_input + 64, PK_ALIGNMENT);
}

static size_t scratch_size(const struct pk_qs8_conv *conv)
{
    const struct plan p = plan_of(conv);
    return padding_size(conv) + p.slots * p.slot;
}

struct work {
    const struct pk_qs8_conv *conv;
    struct plan p;
    const char *packed;
    size_t panel; /* bytes */
    const int8_t *input, *padding;
    int8_t *output;
    char *slots;
};

struct place {
    size_t image, y, x; /* of the first output */
};

static struct place place_of(const struct work *w, size_t tile)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t image = tile / (w->p.across * w->p.down), rest = tile % (w->p.across * w->p.down);
    const size_t ty = rest / w->p.across, tx = rest % w->p.across;
    const size_t dy = conv->dilation_height, dx = conv->dilation_width;
    return (struct place){image, ty / dy * OUT * dy + ty % dy, tx / dx * OUT * dx + tx % dx};
}

/* One tile, all channels; position (i, j) lies at to + (SIDE i + j) * step. */
static void transform_input(const int8_t *const pixels[POSITIONS], size_t depth, int16_t *to,
                            size_t step)
{
    for (size_t c = 0; c < depth; c += 16) {
        __m256i t[SIDE][SIDE];
        PK_UNROLL
        for (int j = 0; j < SIDE; j++) {
            __m256i d[SIDE], column[SIDE];
            PK_UNROLL
            for (int i = 0; i < SIDE; i++)
                d[i] = _mm256_cvtepi8_epi16(
                    _mm_loadu_si128((const __m128i *)(pixels[SIDE * i + j] + c)));
            input_line(d, column);
            PK_UNROLL
            for (int i = 0; i < SIDE; i++)
                t[i][j] = column[i];
        }
        PK_UNROLL
        for (size_t i = 0; i < SIDE; i++) {
            __m256i line[SIDE];
            input_line(t[i], line);
            PK_UNROLL
            for (size_t j = 0; j < SIDE; j++)
                _mm256_storeu_si256((__m256i *)(to + (SIDE * i + j) * step + c), line[j]);
        }
    }
}

/* The weights of 8 channels for pair `k` of input channels. */
PK_INLINE void weights_at(const char *taps, size_t pairs, size_t k, __m256i positions[SIDE][SIDE])
{
    __m256i rows[3][SIDE];
    PK_UNROLL
    for (int y = 0; y < 3; y++) {
        __m256i g[3];
        PK_UNROLL
        for (int x = 0; x < 3; x++)
            g[x] = _mm256_cvtepi8_epi16(
                _mm_loadu_si128((const __m128i *)(taps + ((size_t)(3 * y + x) * pairs + k) * 16)));
        weights_line(g[0], g[1], g[2], rows[y]);
    }
    PK_UNROLL
    for (int j = 0; j < SIDE; j++) {
        __m256i u[SIDE];
        weights_line(rows[0][j], rows[1][j], rows[2][j], u);
        PK_UNROLL
        for (int i = 0; i < SIDE; i++)
            positions[i][j] = u[i];
    }
}

/* Those of two panels; position i lies at to + i * step: for each two input channels 16 output
 * channels. `panels`: 1 if there is no second one. */
static void transform_weights(const char *panel, size_t size, int panels, size_t pairs, int16_t *to,
                              size_t step)
{
    for (int p = 0; p < 2; p++) {
        const char *const taps = panel + (p < panels ? p : 0) * size + LANES * PK_QS8_HEADER;
        for (size_t k = 0; k < pairs; k++) {
            __m256i positions[SIDE][SIDE];
            weights_at(taps, pairs, k, positions);
            int16_t *const first = to + k * 32 + p * 16;
            PK_UNROLL
            for (size_t i = 0; i < POSITIONS; i++)
                _mm256_storeu_si256((__m256i *)(first + i * step), positions[i / SIDE][i % SIDE]);
        }
    }
}

/* What the own products put into output `i` of a tile, of the panel that ends at `end`. */
PK_INLINE __m256i own_of(const char *end, size_t i, const int32_t of_tile[OUTPUTS])
{
    return _mm256_add_epi32(_mm256_load_si256((const __m256i *)(end - OWN + i * LANES * 4)),
                            _mm256_set1_epi32(of_tile[i]));
}

PK_INLINE __m256i quantized(__m256i sums, __m256i bias, __m256 scale, __m256 max)
{
    sums = _mm256_add_epi32(unscaled(sums), bias);
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale), max));
}

/* The outputs of 8 lanes; product (i, j) lies at from + (SIDE i + j) * step. */
PK_INLINE void transform_output(const int32_t *from, size_t step, __m256i out[OUTPUTS])
{
    __m256i rows[OUT][SIDE];
    PK_UNROLL
    for (size_t j = 0; j < SIDE; j++) {
        __m256i m[SIDE], column[OUT];
        PK_UNROLL
        for (size_t i = 0; i < SIDE; i++)
            m[i] = _mm256_loadu_si256((const __m256i *)(from + (SIDE * i + j) * step));
        output_line(m, column);
        PK_UNROLL
        for (size_t i = 0; i < OUT; i++)
            rows[i][j] = column[i];
    }
    PK_UNROLL
    for (size_t i = 0; i < OUT; i++)
        output_line(rows[i], out + OUT * i);
}

/* What the own products of a tile put into its outputs. */
static void own_of_tile(const int16_t *input, size_t step, size_t pairs, int32_t own[OUTPUTS])
{
    int32_t sums[POSITIONS][LANES];
    for (size_t i = 0; i < POSITIONS; i++)
        _mm256_storeu_si256((__m256i *)sums[i], pk_own_of_row(input + i * step, pairs));
    __m256i out[OUTPUTS];
    transform_output(sums[0], LANES, out);
    for (size_t i = 0; i < OUTPUTS; i++)
        own[i] = pk_sum_of_lanes(out[i]);
}

static void pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l, void *packed)
{
    const size_t pairs = conv->group_input / 2;
    for (size_t p = 0; p < l->panels; p++) {
        char *const panel = (char *)packed + p * l->panel;
        int32_t sums[POSITIONS][LANES];
        memset(sums, 0, sizeof sums);
        for (size_t k = 0; k + 2 <= pairs; k += 2) {
            __m256i first[SIDE][SIDE], second[SIDE][SIDE];
            weights_at(panel + l->header, pairs, k, first);
            weights_at(panel + l->header, pairs, k + 1, second);
            for (size_t i = 0; i < POSITIONS; i++) {
                __m256i *const sum = (__m256i *)sums[i];
                const __m256i more =
                    _mm256_madd_epi16(first[i / SIDE][i % SIDE], second[i / SIDE][i % SIDE]);
                _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), more));
            }
        }
        __m256i out[OUTPUTS];
        transform_output(sums[0], LANES, out);
        for (size_t i = 0; i < OUTPUTS; i++)
            _mm256_store_si256((__m256i *)(panel + l->panel - OWN + i * LANES * 4), out[i]);
    }
}

/* The outputs of one tile, 16 channels from `first` on. */
static void put(const struct work *w, struct place place, const int32_t *sums, size_t step,
                const int32_t own[OUTPUTS], const char *const panels[2], size_t first)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t outputs = conv->group_output, count = pk_min(16, outputs - first);
    const __m256 max = _mm256_set1_ps((float)(conv->output_max - conv->output_zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)conv->output_zero_point);
    const __m128i min = _mm_set1_epi8((char)conv->output_min);
    __m256i q[2][OUTPUTS];
    PK_UNROLL
    for (int p = 0; p < 2; p++) {
        const __m256i bias = _mm256_load_si256((const __m256i *)panels[p]);
        const __m256 scale = _mm256_load_ps((const float *)(panels[p] + LANES * 4));
        transform_output(sums + p * LANES, step, q[p]);
        PK_UNROLL
        for (size_t i = 0; i < OUTPUTS; i++)
            q[p][i] = quantized(_mm256_sub_epi32(q[p][i], own_of(panels[p] + w->panel, i, own)),
                                bias, scale, max);
    }
    PK_UNROLL
    for (size_t i = 0; i < OUTPUTS; i++) {
        const size_t y = place.y + (i / OUT) * conv->dilation_height;
        const size_t x = place.x + (i % OUT) * conv->dilation_width;
        if (y >= conv->output_height || x >= conv->output_width)
            continue;
        __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(q[0][i], q[1][i]), zero_point);
        words = _mm256_permute4x64_epi64(words, 0xd8);
        const __m128i bytes = _mm_max_epi8(
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)),
            min);
        const size_t pixel = (place.image * conv->output_height + y) * conv->output_width + x;
        pk_store_tail(w->output + pixel * outputs + first, bytes, count);
    }
}

/* The first tile of chunk `index`. */
static size_t tile_of(const struct plan *p, size_t index)
{
    return pk_part_begin(p->tiles, p->chunks, ROWS, index);
}

static void run_chunk(const struct work *w, size_t chunk, size_t share, char *slot)
{
    const struct pk_qs8_conv *conv = w->conv;
    const struct plan *p = &w->p;
    const size_t begin = tile_of(p, chunk), count = tile_of(p, chunk + 1) - begin;
    const size_t rows = pk_round_up(count, ROWS), channels = conv->group_input;
    int16_t *const input = (int16_t *)slot;
    int16_t *const weights = (int16_t *)(slot + p->input);
    int32_t *const sums = (int32_t *)(slot + p->input + p->weights);
    int32_t *const own = (int32_t *)(slot + p->input + p->weights + p->sums);
    const size_t pairs = channels / 2, panels = pk_divide_up(conv->group_output, LANES);
    for (size_t t = 0; t < rows; t++) {
        const struct place place = place_of(w, begin + pk_min(t, count - 1));
        const int8_t *pixels[POSITIONS];
        for (size_t i = 0; i < POSITIONS; i++) {
            const ptrdiff_t y = (ptrdiff_t)(place.y + i / SIDE * conv->dilation_height) -
                                (ptrdiff_t)conv->padding_top;
            const ptrdiff_t x = (ptrdiff_t)(place.x + i % SIDE * conv->dilation_width) -
                                (ptrdiff_t)conv->padding_left;
            const int inside = y >= 0 && (size_t)y < conv->input_height && x >= 0 &&
                               (size_t)x < conv->input_width;
            const size_t pixel =
                inside ? (place.image * conv->input_height + (size_t)y) * conv->input_width +
                             (size_t)x
                       : 0;
            pixels[i] = inside ? w->input + pixel * channels : w->padding;
        }
        transform_input(pixels, p->depth, input + t * p->depth, p->input_step);
        own_of_tile(input + t * p->depth, p->input_step, pairs, own + OUTPUTS * t);
    }
    const size_t twos = pk_divide_up(panels, 2), end = 2 * (twos * (share + 1) / p->shares);
    for (size_t panel = 2 * (twos * share / p->shares); panel < end; panel += 2) {
        const char *const first = w->packed + panel * w->panel;
        const int both = panel + 1 < panels;
        const char *const two[2] = {first, both ? first + w->panel : first};
        transform_weights(first, w->panel, both ? 2 : 1, pairs, weights, p->weights_step);
        for (size_t i = 0; i < POSITIONS; i++)
            for (size_t t = 0; t < rows; t += ROWS)
                pk_multiply_rows(ROWS, input + i * p->input_step + t * p->depth, p->depth,
                         weights + i * p->weights_step, pairs, sums + i * p->sums_step + t * 16);
        for (size_t t = 0; t < count; t++)
            put(w, place_of(w, begin + t), sums + t * 16, p->sums_step, own + OUTPUTS * t, two,
                panel * LANES);
    }
}

static void chunks_task(void *context, size_t index)
{
    const struct work *w = context;
    const size_t all = w->p.chunks * w->p.shares, end = all * (index + 1) / w->p.slots;
    for (size_t i = all * index / w->p.slots; i < end; i++)
        run_chunk(w, i / w->p.shares, i % w->p.shares, w->slots + index * w->p.slot);
}

static void run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool)
{
    const struct pk_qs8_conv *conv = &task->conv;
    const size_t padding = padding_size(conv);
    memset(task->scratch, conv->input_zero_point, padding);
    struct work w = {.conv = conv, .p = plan_of(conv), .packed = task->packed,
                     .input = task->input, .padding = task->scratch, .output = task->output,
                     .slots = (char *)task->scratch + padding};
    w.panel = pk_qs8_conv_packed_size(conv) / pk_divide_up(conv->group_output, LANES);
    pk_parallelize(pool, chunks_task, &w, w.p.slots);
}
