/* int8 convolution by Winograd's F(2x2, 3x3) with AVX2. See qs8_winograd.h.
 *
 * Tiles of 2x2 outputs go in chunks. For a chunk the input is transformed once; then for each 16
 * output channels the weights are transformed, 16 products are made (one for each position in the
 * transformed tiles), and the outputs are put together.
 */
#include "qs8_multiply_avx2.h"
#include "qs8_winograd.h"
#include "store_tail.h"

#include <string.h>

#define LANES 8
#define OWN (LANES * 4 * 4) /* bytes of the own products, at the end of a panel */
#define ROWS 4 /* tiles that a product takes at a time */

/* The chunks' scratch memory, and how tiles lie in the image. With dilation d a tile has the outputs
 * (y, y + d) x (x, x + d). */
struct plan {
    size_t across, down, tiles; /* of an image, of an image, of all images */
    size_t chunks, shares;      /* of the outputs of a chunk */
    size_t depth;               /* input channels, rounded up to vectors */
    /* From one of the 16 positions to the next, in elements: no multiples of the size of a way of
     * the cache, or they push each other out. */
    size_t input_step, weights_step, sums_step;
    size_t input, weights, sums, own, slot; /* bytes */
    size_t slots;
};

static size_t tiles_along(size_t outputs, size_t dilation)
{
    return pk_divide_up(outputs, 2 * dilation) * dilation;
}

static struct plan plan_of(const struct pk_qs8_conv *conv)
{
    struct plan p;
    p.across = tiles_along(conv->output_width, conv->dilation_width);
    p.down = tiles_along(conv->output_height, conv->dilation_height);
    p.tiles = conv->batch * p.across * p.down;
    p.depth = pk_round_up(conv->group_input, 16);
    /* Half of the second level of cache for the transformed input. */
    const size_t cache = pk_max(conv->cache / 2, (size_t)128 << 10);
    size_t chunk = pk_max(cache / (p.depth * 32), 16);
    p.chunks = pk_divide_up(p.tiles, pk_min(chunk, 128));
    p.shares = 1;
    /* The same number for every thread; not many, for each has its own copy of the weights. Where
     * one takes all tiles, the input is what each share of the outputs has its own copy of. */
    if (conv->threads > 1 && p.chunks == 1)
        p.shares = pk_min(2 * conv->threads, pk_divide_up(conv->group_output, 2 * LANES));
    else if (conv->threads > 1)
        p.chunks = pk_min(pk_round_up(p.chunks, conv->threads), pk_divide_up(p.tiles, 2 * ROWS));
    chunk = pk_min(pk_divide_up(p.tiles, pk_max(p.chunks, 1)) + ROWS, p.tiles); /* at most */
    chunk = pk_round_up(chunk, ROWS);
    p.input_step = chunk * p.depth + 32;
    p.weights_step = conv->group_input * 2 * LANES + 32;
    p.sums_step = chunk * 2 * LANES + 16;
    p.input = 16 * p.input_step * 2;
    p.weights = 16 * p.weights_step * 2;
    p.sums = 16 * p.sums_step * 4;
    p.own = pk_round_up(chunk * 4 * 4, PK_ALIGNMENT);
    p.slot = p.input + p.weights + p.sums + p.own;
    p.slots = pk_min(p.chunks * p.shares, conv->threads > 1 ? 4 * conv->threads : 1);
    return p;
}

int pk_qs8_winograd_can(const struct pk_qs8_conv *conv)
{
    return conv->kernel_height == 3 && conv->kernel_width == 3 && conv->stride_height == 1 &&
           conv->stride_width == 1 && conv->groups == 1 && conv->group_input % 2 == 0 &&
           conv->group_input >= 16 && conv->group_input <= PK_WINOGRAD_CHANNELS &&
           conv->group_output >= 16;
}

int pk_qs8_winograd_suits(const struct pk_qs8_conv *conv)
{
    /* Tiles reach over the border where sizes are odd, or small beside the dilation: what they
     * multiply must stay well below the 9 products of each output. */
    const size_t tiles = tiles_along(conv->output_width, conv->dilation_width) *
                         tiles_along(conv->output_height, conv->dilation_height);
    const size_t outputs = conv->output_height * conv->output_width;
    return tiles * 16 * 10 < outputs * 9 * 7 && pk_qs8_winograd_can(conv);
}

/* Pixels of padding lie before the slots. */
static size_t padding_size(const struct pk_qs8_conv *conv)
{
    return pk_round_up(conv->group_input + 64, PK_ALIGNMENT);
}

size_t pk_qs8_winograd_scratch_size(const struct pk_qs8_conv *conv)
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
    return (struct place){image, ty / dy * 2 * dy + ty % dy, tx / dx * 2 * dx + tx % dx};
}

/* B^T d B of one tile, all channels; position (i, j) lies at to + (4 i + j) * step. */
static void transform_input(const int8_t *const pixels[16], size_t depth, int16_t *to, size_t step)
{
    for (size_t c = 0; c < depth; c += 16) {
        __m256i t[4][4];
        PK_UNROLL
        for (int j = 0; j < 4; j++) {
            __m256i d[4];
            PK_UNROLL
            for (int i = 0; i < 4; i++)
                d[i] = _mm256_cvtepi8_epi16(
                    _mm_loadu_si128((const __m128i *)(pixels[4 * i + j] + c)));
            t[0][j] = _mm256_sub_epi16(d[0], d[2]);
            t[1][j] = _mm256_add_epi16(d[1], d[2]);
            t[2][j] = _mm256_sub_epi16(d[2], d[1]);
            t[3][j] = _mm256_sub_epi16(d[1], d[3]);
        }
        PK_UNROLL
        for (int i = 0; i < 4; i++) {
            int16_t *const row = to + 4 * i * step + c;
            _mm256_storeu_si256((__m256i *)row, _mm256_sub_epi16(t[i][0], t[i][2]));
            _mm256_storeu_si256((__m256i *)(row + step), _mm256_add_epi16(t[i][1], t[i][2]));
            _mm256_storeu_si256((__m256i *)(row + 2 * step), _mm256_sub_epi16(t[i][2], t[i][1]));
            _mm256_storeu_si256((__m256i *)(row + 3 * step), _mm256_sub_epi16(t[i][1], t[i][3]));
        }
    }
}

/* 2G (g0, g1, g2) of int16. */
PK_INLINE void expand(__m256i g0, __m256i g1, __m256i g2, __m256i out[4])
{
    const __m256i ends = _mm256_add_epi16(g0, g2);
    out[0] = _mm256_add_epi16(g0, g0);
    out[1] = _mm256_add_epi16(ends, g1);
    out[2] = _mm256_sub_epi16(ends, g1);
    out[3] = _mm256_add_epi16(g2, g2);
}

/* 4 G g G^T of 8 channels, for two input channels. */
PK_INLINE void weights_at(const char *taps, size_t pairs, size_t k, __m256i positions[4][4])
{
    __m256i rows[3][4];
    PK_UNROLL
    for (int y = 0; y < 3; y++) {
        __m256i g[3];
        PK_UNROLL
        for (int x = 0; x < 3; x++)
            g[x] = _mm256_cvtepi8_epi16(
                _mm_loadu_si128((const __m128i *)(taps + ((size_t)(3 * y + x) * pairs + k) * 16)));
        expand(g[0], g[1], g[2], rows[y]);
    }
    PK_UNROLL
    for (int j = 0; j < 4; j++) {
        __m256i u[4];
        expand(rows[0][j], rows[1][j], rows[2][j], u);
        PK_UNROLL
        for (int i = 0; i < 4; i++)
            positions[i][j] = u[i];
    }
}

/* 4 G g G^T of two panels; position i lies at to + i * step: for each two input channels 16
 * output channels. `panels`: 1 if there is no second one. */
static void transform_weights(const char *panel, size_t size, int panels, size_t pairs, int16_t *to,
                              size_t step)
{
    for (int p = 0; p < 2; p++) {
        const char *const taps = panel + (p < panels ? p : 0) * size + LANES * 8;
        for (size_t k = 0; k < pairs; k++) {
            __m256i positions[4][4];
            weights_at(taps, pairs, k, positions);
            int16_t *const first = to + k * 32 + p * 16;
            PK_UNROLL
            for (int j = 0; j < 4; j++) {
                PK_UNROLL
                for (int i = 0; i < 4; i++)
                    _mm256_storeu_si256((__m256i *)(first + (size_t)(4 * i + j) * step),
                                        positions[i][j]);
            }
        }
    }
}

/* What the own products put into output `i` of a tile, of the panel that ends at `end`. */
PK_INLINE __m256i own_of(const char *end, int i, const int32_t of_tile[4])
{
    return _mm256_add_epi32(_mm256_load_si256((const __m256i *)(end - OWN + i * LANES * 4)),
                            _mm256_set1_epi32(of_tile[i]));
}

PK_INLINE __m256i quantized(__m256i sums, __m256i bias, __m256 scale, __m256 max)
{
    sums = _mm256_add_epi32(_mm256_srai_epi32(sums, 2), bias);
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale), max));
}

/* A^T m A of 8 lanes; vector (i, j) lies at from + (4 i + j) * step. */
PK_INLINE void transform_output(const int32_t *from, size_t step, __m256i out[4])
{
    __m256i rows[2][4];
    PK_UNROLL
    for (int j = 0; j < 4; j++) {
        __m256i m[4];
        PK_UNROLL
        for (int i = 0; i < 4; i++)
            m[i] = _mm256_loadu_si256((const __m256i *)(from + (size_t)(4 * i + j) * step));
        rows[0][j] = _mm256_add_epi32(_mm256_add_epi32(m[0], m[1]), m[2]);
        rows[1][j] = _mm256_sub_epi32(_mm256_sub_epi32(m[1], m[2]), m[3]);
    }
    PK_UNROLL
    for (int i = 0; i < 2; i++) {
        out[2 * i] = _mm256_add_epi32(_mm256_add_epi32(rows[i][0], rows[i][1]), rows[i][2]);
        out[2 * i + 1] = _mm256_sub_epi32(_mm256_sub_epi32(rows[i][1], rows[i][2]), rows[i][3]);
    }
}

/* What the own products of a tile put into its four outputs. */
static void own_of_tile(const int16_t *input, size_t step, size_t pairs, int32_t own[4])
{
    int32_t sums[16][LANES];
    for (size_t i = 0; i < 16; i++)
        _mm256_storeu_si256((__m256i *)sums[i], pk_own_of_row(input + i * step, pairs));
    __m256i out[4];
    transform_output(sums[0], LANES, out);
    _mm_storeu_si128((__m128i *)own, pk_sums_of_lanes(out));
}

void pk_qs8_winograd_pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l,
                              void *packed)
{
    const size_t pairs = conv->group_input / 2;
    for (size_t p = 0; p < l->panels; p++) {
        char *const panel = (char *)packed + p * l->panel;
        int32_t sums[16][LANES];
        memset(sums, 0, sizeof sums);
        for (size_t k = 0; k + 2 <= pairs; k += 2) {
            __m256i first[4][4], second[4][4];
            weights_at(panel + l->header, pairs, k, first);
            weights_at(panel + l->header, pairs, k + 1, second);
            for (size_t i = 0; i < 16; i++) {
                __m256i *const sum = (__m256i *)sums[i];
                const __m256i more = _mm256_madd_epi16(first[i / 4][i % 4], second[i / 4][i % 4]);
                _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), more));
            }
        }
        __m256i out[4];
        transform_output(sums[0], LANES, out);
        for (size_t i = 0; i < 4; i++)
            _mm256_store_si256((__m256i *)(panel + l->panel - OWN + i * LANES * 4), out[i]);
    }
}

/* The four outputs of one tile, 16 channels from `first` on. */
static void put(const struct work *w, struct place place, const int32_t *sums, size_t step,
                const int32_t own[4], const char *const panels[2], size_t first)
{
    const struct pk_qs8_conv *conv = w->conv;
    const size_t outputs = conv->group_output, count = pk_min(16, outputs - first);
    const __m256 max = _mm256_set1_ps((float)(conv->output_max - conv->output_zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)conv->output_zero_point);
    const __m128i min = _mm_set1_epi8((char)conv->output_min);
    __m256i q[2][4];
    PK_UNROLL
    for (int p = 0; p < 2; p++) {
        const __m256i bias = _mm256_load_si256((const __m256i *)panels[p]);
        const __m256 scale = _mm256_load_ps((const float *)(panels[p] + LANES * 4));
        transform_output(sums + p * LANES, step, q[p]);
        PK_UNROLL
        for (int i = 0; i < 4; i++)
            q[p][i] = quantized(_mm256_sub_epi32(q[p][i], own_of(panels[p] + w->panel, i, own)),
                                bias, scale, max);
    }
    PK_UNROLL
    for (int i = 0; i < 4; i++) {
        const size_t y = place.y + (i / 2) * conv->dilation_height;
        const size_t x = place.x + (i % 2) * conv->dilation_width;
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
        const int8_t *pixels[16];
        for (size_t i = 0; i < 16; i++) {
            const ptrdiff_t y = (ptrdiff_t)(place.y + i / 4 * conv->dilation_height) -
                                (ptrdiff_t)conv->padding_top;
            const ptrdiff_t x = (ptrdiff_t)(place.x + i % 4 * conv->dilation_width) -
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
        own_of_tile(input + t * p->depth, p->input_step, pairs, own + 4 * t);
    }
    const size_t twos = pk_divide_up(panels, 2), end = 2 * (twos * (share + 1) / p->shares);
    for (size_t panel = 2 * (twos * share / p->shares); panel < end; panel += 2) {
        const char *const first = w->packed + panel * w->panel;
        const int both = panel + 1 < panels;
        const char *const two[2] = {first, both ? first + w->panel : first};
        transform_weights(first, w->panel, both ? 2 : 1, pairs, weights, p->weights_step);
        for (size_t i = 0; i < 16; i++)
            for (size_t t = 0; t < rows; t += ROWS)
                pk_multiply_rows(ROWS, input + i * p->input_step + t * p->depth, p->depth,
                         weights + i * p->weights_step, pairs, sums + i * p->sums_step + t * 16);
        for (size_t t = 0; t < count; t++)
            put(w, place_of(w, begin + t), sums + t * 16, p->sums_step, own + 4 * t, two,
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

void pk_qs8_winograd_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool)
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
