/* The transforms of F(2x2, 3x3) for one instruction set. Whoever includes this has defined the vector
 * type V of WIDTH floats, LOAD, LOAD_SOME, STORE, STORE_SOME, SET, ADD, SUB, MUL, FMA, FNMA, MIN, MAX
 * and ALL_ZERO. */
#include "f32_winograd.h"
#include "unroll.h"

/* Row `i` of B^T times one column of a tile. */
PK_INLINE V input_row(const V d0, const V d1, const V d2, const V d3, const int i)
{
    return i == 0 ? SUB(d0, d2) : i == 1 ? ADD(d1, d2) : i == 2 ? SUB(d2, d1) : SUB(d1, d3);
}

PK_INLINE V load_input(const float *from, size_t count, const int whole)
{
    return whole ? LOAD(from) : LOAD_SOME(from, count);
}

/* A row of elements from the columns of B^T d. */
PK_INLINE void put_input_row(const V t[4], float *to, size_t step)
{
    PK_UNROLL for (int j = 0; j < 4; j++)
        STORE(to + (size_t)j * step, input_row(t[0], t[1], t[2], t[3], j));
}

/* The rows of elements one by one, and the two in the middle together: they fit the registers. */
PK_INLINE void input_vector(const float *const pixels[], size_t c, size_t count, const int whole,
                            float *to, size_t step)
{
    V t[4], u[4];
    PK_UNROLL for (int j = 0; j < 4; j++)
        t[j] = SUB(load_input(pixels[j] + c, count, whole),
                   load_input(pixels[8 + j] + c, count, whole));
    put_input_row(t, to, step);
    PK_UNROLL for (int j = 0; j < 4; j++) {
        const V d1 = load_input(pixels[4 + j] + c, count, whole);
        const V d2 = load_input(pixels[8 + j] + c, count, whole);
        t[j] = ADD(d1, d2);
        u[j] = SUB(d2, d1);
    }
    put_input_row(t, to + 4 * step, step);
    put_input_row(u, to + 8 * step, step);
    PK_UNROLL for (int j = 0; j < 4; j++)
        t[j] = SUB(load_input(pixels[4 + j] + c, count, whole),
                   load_input(pixels[12 + j] + c, count, whole));
    put_input_row(t, to + 12 * step, step);
}

/* The last vector may be written beyond the channels. */
static void input_tile(const float *const pixels[PK_F32_WINOGRAD_POINTS], size_t channels, float *to,
                       size_t step)
{
    size_t c = 0;
    for (; c + WIDTH <= channels; c += WIDTH)
        input_vector(pixels, c, WIDTH, 1, to + c, step);
    if (c < channels)
        input_vector(pixels, c, channels - c, 0, to + c, step);
}

/* G (g0, g1, g2). */
PK_INLINE void expand(const V g0, const V g1, const V g2, V out[4])
{
    const V half = SET(0.5f), ends = MUL(half, ADD(g0, g2));
    out[0] = g0;
    out[1] = FMA(half, g1, ends);
    out[2] = FNMA(half, g1, ends);
    out[3] = g2;
}

static void weights_block(const float *taps, size_t tap, size_t size, float *to, size_t step)
{
    for (size_t i = 0; i < size; i += WIDTH) {
        V columns[3][4];
        PK_UNROLL for (int x = 0; x < 3; x++) {
            const float *from = taps + i + (size_t)x * tap;
            expand(LOAD(from), LOAD(from + 3 * tap), LOAD(from + 6 * tap), columns[x]);
        }
        PK_UNROLL for (int y = 0; y < 4; y++) {
            V row[4];
            expand(columns[0][y], columns[1][y], columns[2][y], row);
            PK_UNROLL for (int x = 0; x < 4; x++)
                STORE(to + i + (size_t)(4 * y + x) * step, row[x]);
        }
    }
}

/* A^T (m0, m1, m2, m3). */
PK_INLINE void contract(const V m0, const V m1, const V m2, const V m3, V *first, V *second)
{
    *first = ADD(ADD(m0, m1), m2);
    *second = SUB(SUB(m1, m2), m3);
}

static int output_tile(const struct pk_f32_winograd_output *output)
{
    const V min = SET(output->min), max = SET(output->max);
    V finite = SET(0.0f);
    for (size_t c = 0; c < output->channels; c += WIDTH) {
        const size_t count = pk_min(output->channels - c, WIDTH);
        const V bias = LOAD(output->bias + c);
        V rows[2][4], pixels[4];
        PK_UNROLL for (int j = 0; j < 4; j++) {
            const float *sums = output->sums + c + (size_t)j * output->step;
            contract(LOAD(sums), LOAD(sums + 4 * output->step), LOAD(sums + 8 * output->step),
                     LOAD(sums + 12 * output->step), &rows[0][j], &rows[1][j]);
        }
        PK_UNROLL for (int i = 0; i < 2; i++)
            contract(rows[i][0], rows[i][1], rows[i][2], rows[i][3], &pixels[2 * i],
                     &pixels[2 * i + 1]);
        /* What is not finite times zero is NaN, and remains. */
        const V sum = ADD(ADD(pixels[0], pixels[1]), ADD(pixels[2], pixels[3]));
        finite = FMA(sum, SET(0.0f), finite);
        PK_UNROLL for (int i = 0; i < 4; i++) {
            if (!output->pixels[i])
                continue;
            const V result = MIN(max, MAX(min, ADD(pixels[i], bias)));
            if (count == WIDTH)
                STORE(output->pixels[i] + c, result);
            else
                STORE_SOME(output->pixels[i] + c, result, count);
        }
    }
    return ALL_ZERO(finite);
}

#define KERNEL {input_tile, weights_block, output_tile}
