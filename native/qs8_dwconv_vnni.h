/* The block of int8 depthwise convolution with vpdpbusd, for vectors of one width. Files include it
 * once for each width and define NAME(x), VECTOR (the type), FLOATS, WIDTH (its bytes), and the
 * operations load(block, from), xor, unpack*, dot, ... by the prefix of their intrinsics. */

PK_INLINE VECTOR NAME(quantized)(VECTOR sums, FLOATS scale, FLOATS max)
{
    return OP(cvtps_epi32)(OP(min_ps)(OP(mul_ps)(OP(cvtepi32_ps)(sums), scale), max));
}

/* The first `count` of four rows, value by value; the weights of the others are zeros. */
PK_INLINE void NAME(interleave)(const int8_t *const *rows, const int count, size_t offset,
                                size_t channels, VECTOR columns[4])
{
    const VECTOR sign = OP(set1_epi8)((char)0x80);
    VECTOR r[4];
    PK_UNROLL
    for (int i = 0; i < 4; i++)
        r[i] = i < count ? XOR(NAME(load)(rows[i] + offset, channels), sign) : sign;
    const VECTOR low0 = OP(unpacklo_epi8)(r[0], r[1]), high0 = OP(unpackhi_epi8)(r[0], r[1]);
    const VECTOR low1 = OP(unpacklo_epi8)(r[2], r[3]), high1 = OP(unpackhi_epi8)(r[2], r[3]);
    columns[0] = OP(unpacklo_epi16)(low0, low1);
    columns[1] = OP(unpackhi_epi16)(low0, low1);
    columns[2] = OP(unpacklo_epi16)(high0, high1);
    columns[3] = OP(unpackhi_epi16)(high0, high1);
}

PK_INLINE void NAME(block)(const struct pk_qs8_dwblock *b, const int outputs, const int width,
                           const int stride, const int shared)
{
    const char *const packed = b->packed;
    const VECTOR *const biases = (const VECTOR *)packed;
    const FLOATS *const scales = (const FLOATS *)(packed + 4 * WIDTH);
    const char *taps = packed + 8 * WIDTH;
    const size_t columns_of = b->groups * 4, channels = b->channels, offset = b->offset;
    VECTOR sums[PK_QS8_DW_OUTPUTS][4];
    PK_UNROLL
    for (int o = 0; o < outputs; o++)
        PK_UNROLL
        for (int j = 0; j < 4; j++)
            sums[o][j] = LOAD(biases + j);
    if (shared) {
        const int groups = (width + 3) / 4; /* of a square kernel */
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            const int8_t *const *rows = b->rows + 4 * g;
            const int count = width - 4 * g < 4 ? width - 4 * g : 4;
            PK_UNROLL
            for (int c = 0; c < (outputs - 1) * stride + width; c++) {
                VECTOR column[4];
                NAME(interleave)(rows + c * 4 * groups, count, offset, channels, column);
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    const int x = c - o * stride;
                    if (x < 0 || x >= width)
                        continue;
                    PK_UNROLL
                    for (int j = 0; j < 4; j++)
                        sums[o][j] = DOT(sums[o][j], column[j],
                                         LOAD((const VECTOR *)(taps + (4 * x + j) * WIDTH)));
                }
            }
            taps += 4 * WIDTH * width;
        }
    } else {
        for (size_t g = 0; g < b->groups; g++) {
            const int8_t *const *rows = b->rows + 4 * g;
            for (size_t x = 0; x < b->kernel_width; x++, taps += 4 * WIDTH) {
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    VECTOR column[4];
                    NAME(interleave)(rows + (o * b->output_step + x * b->tap_step) * columns_of, 4, offset,
                                     channels, column);
                    PK_UNROLL
                    for (int j = 0; j < 4; j++)
                        sums[o][j] = DOT(sums[o][j], column[j],
                                         LOAD((const VECTOR *)(taps + j * WIDTH)));
                }
            }
        }
    }
    const FLOATS max = OP(set1_ps)((float)(b->max - b->zero_point));
    const VECTOR zero_point = OP(set1_epi16)((int16_t)b->zero_point);
    const VECTOR min = OP(set1_epi8)((char)b->min);
    PK_UNROLL
    for (int o = 0; o < outputs; o++) {
        VECTOR q[4];
        PK_UNROLL
        for (int j = 0; j < 4; j++)
            q[j] = NAME(quantized)(sums[o][j], LOAD_FLOATS(scales + j), max);
        const VECTOR low = OP(adds_epi16)(OP(packs_epi32)(q[0], q[1]), zero_point);
        const VECTOR high = OP(adds_epi16)(OP(packs_epi32)(q[2], q[3]), zero_point);
        const VECTOR bytes = OP(max_epi8)(OP(packs_epi16)(low, high), min);
        NAME(store)(b->output + (size_t)o * b->output_stride, bytes, channels);
    }
}

static void NAME(run)(const struct pk_qs8_dwblock *b, size_t outputs, size_t stride, int shared)
{
    PK_QS8_DW_CASES(NAME(block))
}
