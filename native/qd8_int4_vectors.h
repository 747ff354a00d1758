/* Products with int4 weights in vectors that have a dword for each channel of a panel, for the files
 * that include this: they define LANES, ROWS (of a tile), INTS and FLOATS (the vectors), PARTS (sums
 * at a time for a single row), KEEP (PK_KEEP where there are few registers) and the functions that have no body here. */
#include "qd8_int4.h"
#include "unroll.h"

#include <immintrin.h>

PK_INLINE INTS dword_of(const char *from)
{
    int32_t x;
    __builtin_memcpy(&x, from, 4);
    return broadcast(x);
}

/* Bytes of a chunk's weights. */
PK_INLINE size_t chunk_size(const int unpacked, const int bits)
{
    return (unpacked ? 8 : bits) * sizeof(INTS);
}

/* Two of a chunk's eight vectors of weights of 6 bits. */
PK_INLINE void pair_of_6(const char *from, const int v, INTS w[2])
{
    const INTS low = load(from + v / 2 * sizeof(INTS));
    halves_of_6(load(from + (size_t)(v + 2) * sizeof(INTS)), low, v % 2, w);
}

static void unpack(char *to, const char *from, size_t chunks)
{
    for (size_t i = 0; i < 4 * chunks; i++, from += sizeof(INTS), to += 2 * sizeof(INTS)) {
        INTS w[2];
        halves(load(from), w);
        store(to, w[0]);
        store(to + sizeof(INTS), w[1]);
    }
}

static void unpack6(char *to, const char *from, size_t chunks)
{
    for (; chunks; chunks--, from += 6 * sizeof(INTS)) {
        PK_UNROLL
        for (int v = 0; v < 4; v++, to += 2 * sizeof(INTS)) {
            INTS w[2];
            pair_of_6(from, v, w);
            store(to, w[0]);
            store(to + sizeof(INTS), w[1]);
        }
    }
}

/* Adds the products of a chunk. (Asking early for what comes next makes a single row slower: what
 * processors fetch of one stream by themselves is enough.) */
PK_INLINE void add_chunk(const char *values, size_t row_size, const char *weights, const int rows,
                         const int unpacked, const int bits, const int parts,
                         INTS sums[ROWS][PARTS])
{
    INTS running[ROWS][PARTS];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        PK_UNROLL
        for (int p = 0; p < parts; p++)
            running[r][p] = begun(sums[r][p]);
    PK_UNROLL
    for (int v = 0; v < 4; v++) {
        INTS w[2];
        if (unpacked) {
            w[0] = load(weights + 2 * v * sizeof(INTS));
            w[1] = load(weights + (2 * v + 1) * sizeof(INTS));
        } else if (bits == 6) {
            pair_of_6(weights, v, w);
        } else {
            halves(load(weights + v * sizeof(INTS)), w);
        }
        PK_UNROLL
        for (int h = 0; h < 2; h++)
            PK_UNROLL
            for (int r = 0; r < rows; r++) {
                INTS *const sum = &running[r][(2 * v + h) % parts];
                *sum = multiply_add(*sum, dword_of(values + 8 * v + 4 * h + r * row_size), w[h]);
                KEEP(*sum);
            }
        if (bits == 4 || v == 3)
            continue;
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            PK_UNROLL
            for (int p = 0; p < parts; p++) {
                sums[r][p] = ended(sums[r][p], running[r][p]);
                running[r][p] = begun(sums[r][p]);
            }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        PK_UNROLL
        for (int p = 0; p < parts; p++)
            sums[r][p] = ended(sums[r][p], running[r][p]);
}

PK_INLINE void put(const struct pk_qd8_int4_tile *t, size_t row, FLOATS x)
{
    x = least(most(x, floats(t->min)), floats(t->max));
    store_floats(t->output + row * t->output_stride, x, t->channels);
}

/* `single`: blocks are chunks. */
PK_INLINE void run_blocks(const struct pk_qd8_int4_tile *t, size_t row, const int rows,
                          const int unpacked, const int single)
{
    const char *group = t->panel + pk_qd8_int4_header(LANES), *values = t->values + row * t->row_size;
    const char *weights = unpacked ? t->unpacked : group;
    const size_t row_size = t->row_size, block = single ? 1 : t->block;
    const size_t each = pk_qd8_int4_group(LANES);
    const FLOATS of_weights = load_floats(t->panel), bias = load_floats(t->panel + 8 * LANES);
    FLOATS sums[ROWS];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        sums[r] = multiply(of_weights, floats(-(float)(t->rows[row + r].zero_point + 128)));
    for (size_t left = t->chunks / block; left;) {
        const char *scales = group;
        weights += unpacked ? 0 : PK_ALIGNMENT;
        group += PK_ALIGNMENT + each * block * chunk_size(0, 4);
        for (size_t i = left < each ? left : each; i; i--, left--, scales += 2 * LANES) {
            INTS found[ROWS][PARTS];
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                found[r][0] = broadcast(0);
            for (size_t j = block;;) {
                add_chunk(values, row_size, weights, rows, unpacked, 4, 1, found);
                values += PK_INT4_CHUNK;
                weights += chunk_size(unpacked, 4);
                if (single || !--j)
                    break;
            }
            const FLOATS scale = load_scales((const uint16_t *)scales);
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                sums[r] = fused(as_floats(found[r][0]), scale, sums[r]);
        }
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        put(t, row + r, plus(multiply(sums[r], floats(t->rows[row + r].scale)), bias));
}

/* With scales of channels. */
PK_INLINE void run_channels(const struct pk_qd8_int4_tile *t, size_t row, const int rows,
                            const int unpacked, const int bits)
{
    const int parts = rows == 1 ? PARTS : 1;
    const char *values = t->values + row * t->row_size;
    const char *weights = unpacked ? t->unpacked : t->panel + pk_qd8_int4_header(LANES);
    const size_t row_size = t->row_size;
    INTS sums[ROWS][PARTS];
    PK_UNROLL
    for (int r = 0; r < rows; r++)
        PK_UNROLL
        for (int p = 0; p < parts; p++)
            sums[r][p] = broadcast(0);
    for (size_t i = t->chunks; i; i--, values += PK_INT4_CHUNK, weights += chunk_size(unpacked, bits))
        add_chunk(values, row_size, weights, rows, unpacked, bits, parts, sums);
    const INTS of_weights = load(t->panel);
    const FLOATS scale = load_floats(t->panel + 4 * LANES), bias = load_floats(t->panel + 8 * LANES);
    PK_UNROLL
    for (int r = 0; r < rows; r++) {
        INTS sum = sums[r][0];
        PK_UNROLL
        for (int p = 1; p < parts; p++)
            sum = add(sum, sums[r][p]);
        const INTS zero_point = broadcast(t->rows[row + r].zero_point + 128);
        sum = subtract(sum, multiply_ints(of_weights, zero_point));
        const FLOATS x = multiply(as_floats(sum), floats(t->rows[row + r].scale));
        put(t, row + r, fused(x, scale, bias));
    }
}

/* Rows cut into tiles. */
#define TILES(name, run, ...)                                                                      \
    static void name(const struct pk_qd8_int4_tile *t, size_t rows)                                \
    {                                                                                              \
        size_t r = 0;                                                                              \
        for (; r + ROWS <= rows; r += ROWS)                                                        \
            run(t, r, ROWS, __VA_ARGS__);                                                          \
        if (ROWS > 8 && rows - r >= 8) {                                                           \
            run(t, r, ROWS > 8 ? 8 : 1, __VA_ARGS__);                                              \
            r += 8;                                                                                \
        }                                                                                          \
        if (ROWS > 4 && rows - r >= 4) {                                                           \
            run(t, r, ROWS > 4 ? 4 : 1, __VA_ARGS__);                                              \
            r += 4;                                                                                \
        }                                                                                          \
        if (rows - r >= 2) {                                                                       \
            run(t, r, 2, __VA_ARGS__);                                                             \
            r += 2;                                                                                \
        }                                                                                          \
        if (r < rows)                                                                              \
            run(t, r, 1, __VA_ARGS__);                                                             \
    }

TILES(channels_packed, run_channels, 0, 4)
TILES(channels_unpacked, run_channels, 1, 4)
TILES(sixes_packed, run_channels, 0, 6)
TILES(sixes_unpacked, run_channels, 1, 6)
TILES(chunks_packed, run_blocks, 0, 1)
TILES(chunks_unpacked, run_blocks, 1, 1)
TILES(blocks_packed, run_blocks, 0, 0)
TILES(blocks_unpacked, run_blocks, 1, 0)

static void tiles(const struct pk_qd8_int4_tile *t, size_t rows)
{
    if (t->bits == 6)
        t->unpacked ? sixes_unpacked(t, rows) : sixes_packed(t, rows);
    else if (!t->block)
        t->unpacked ? channels_unpacked(t, rows) : channels_packed(t, rows);
    else if (t->block == 1)
        t->unpacked ? chunks_unpacked(t, rows) : chunks_packed(t, rows);
    else
        t->unpacked ? blocks_unpacked(t, rows) : blocks_packed(t, rows);
}
