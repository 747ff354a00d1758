/* Products with int4 weights in plain C: what the other kernels are compared with. */
#include "qd8_int4.h"

#include <string.h>

#define LANES 4

static void prepare(char *to, const void *from, size_t count)
{
    const int16_t *const values = from;
    for (size_t i = 0; i < count; i++)
        to[i] = (char)(values[i] + 128);
    memset(to + count, 0, pk_round_up(count, PK_INT4_CHUNK) - count);
}

#if PK_ARM
/* ARM's kernels quantize rows to bytes. */
static void prepare_bytes(char *to, const void *from, size_t count)
{
    const int8_t *const values = from;
    for (size_t i = 0; i < count; i++)
        to[i] = (char)(values[i] + 128);
    memset(to + count, 0, pk_round_up(count, PK_INT4_CHUNK) - count);
}
#endif

/* Adds the products of a chunk to the sum of each channel. */
static void add_chunk(const char *values, const char *weights, int32_t sums[LANES])
{
    for (size_t i = 0; i < PK_INT4_CHUNK; i++)
        for (size_t c = 0; c < LANES; c++) {
            const uint8_t two = (uint8_t)weights[i / 8 * 4 * LANES + 4 * c + i % 4];
            sums[c] += (uint8_t)values[i] * ((i & 4 ? two >> 4 : two & 15) - 8);
        }
}

static void add_chunk_of_6(const char *values, const char *weights, int32_t sums[LANES])
{
    const char *const high = weights + 2 * 4 * LANES;
    for (size_t i = 0; i < PK_INT4_CHUNK; i++)
        for (size_t c = 0; c < LANES; c++) {
            const uint8_t two = (uint8_t)high[i / 8 * 4 * LANES + 4 * c + i % 4];
            const uint8_t four = (uint8_t)weights[i / 16 * 4 * LANES + 4 * c + i % 4];
            const int32_t upper = (i & 4 ? two >> 4 : two & 15) - 8;
            sums[c] += (uint8_t)values[i] * (4 * upper + (four >> i / 4 % 4 * 2 & 3));
        }
}

/* x * y + z, rounded once: the product is exact in double; the sum is rounded to odd, so that it does
 * not matter that the result is rounded again. */
static float fused(float x, float y, float z)
{
    const double product = (double)x * y, sum = product + z, rest = sum - product;
    const double error = (product - (sum - rest)) + (z - rest);
    uint64_t bits;
    memcpy(&bits, &sum, 8);
    if ((error > 0 || error < 0) && !(bits & 1))
        bits = (error > 0) == (sum > 0) ? bits + 1 : bits - 1;
    double odd;
    memcpy(&odd, &bits, 8);
    return (float)odd;
}

/* A channel's scale of a block of a group. */
static float scale_of(const char *group, size_t block, size_t channel)
{
    uint16_t half;
    memcpy(&half, group + 2 * (block * LANES + channel), 2);
    const uint32_t bits = (uint32_t)half << 16;
    float scale;
    memcpy(&scale, &bits, 4);
    return scale;
}

static void row_of_blocks(const struct pk_qd8_int4_tile *t, const char *values, int32_t zero_point,
                          float found[LANES])
{
    const char *at = t->panel + pk_qd8_int4_header(LANES), *group = NULL;
    for (size_t c = 0; c < LANES; c++)
        found[c] = -((const float *)t->panel)[c] * (float)zero_point;
    for (size_t b = 0; b < t->chunks / t->block; b++) {
        const size_t within = b % pk_qd8_int4_group(LANES);
        int32_t sums[LANES] = {0};
        if (within == 0) {
            group = at;
            at += PK_ALIGNMENT;
        }
        for (size_t i = 0; i < t->block; i++, values += PK_INT4_CHUNK, at += 16 * LANES)
            add_chunk(values, at, sums);
        for (size_t c = 0; c < LANES; c++)
            found[c] = fused((float)sums[c], scale_of(group, within, c), found[c]);
    }
}

static void row_of_channels(const struct pk_qd8_int4_tile *t, const char *values,
                            int32_t zero_point, float found[LANES])
{
    const char *at = t->panel + pk_qd8_int4_header(LANES);
    const size_t size = pk_qd8_int4_chunk(LANES, t->bits);
    int32_t sums[LANES] = {0};
    for (size_t i = 0; i < t->chunks; i++, values += PK_INT4_CHUNK, at += size)
        (t->bits == 6 ? add_chunk_of_6 : add_chunk)(values, at, sums);
    for (size_t c = 0; c < LANES; c++)
        found[c] = (float)(sums[c] - zero_point * ((const int32_t *)t->panel)[c]);
}

static void tiles(const struct pk_qd8_int4_tile *t, size_t rows)
{
    const float *const scale = (const float *)t->panel + LANES, *const bias = scale + LANES;
    for (size_t r = 0; r < rows; r++) {
        const struct pk_qd8_row row = t->rows[r];
        float found[LANES];
        (t->block ? row_of_blocks : row_of_channels)(t, t->values + r * t->row_size,
                                                     row.zero_point + 128, found);
        for (size_t c = 0; c < t->channels; c++) {
            float x = found[c] * row.scale;
            x = t->block ? x + bias[c] : fused(x, scale[c], bias[c]);
            x = x > t->min ? x : t->min;
            x = x < t->max ? x : t->max;
            t->output[r * t->output_stride + c] = x;
        }
    }
}

const struct pk_qd8_int4_kernels pk_qd8_int4_scalar = {
    .name = "scalar", .lanes = LANES, .rows = 1, .factor = 1, .factor6 = 1, .element = 2,
    .prepare = prepare, .tiles = tiles,
};
#if PK_ARM
const struct pk_qd8_int4_kernels pk_qd8_int4_bytes = {
    .name = "scalar", .lanes = LANES, .rows = 1, .factor = 1, .factor6 = 1, .element = 1,
    .prepare = prepare_bytes, .tiles = tiles,
};
#endif
