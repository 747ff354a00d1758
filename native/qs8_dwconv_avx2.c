/* int8 depthwise convolution with AVX2: blocks of up to 16 channels; two rows of taps, widened to
 * int16 and interleaved, by vpmaddwd. */
#include "qs8_dwconv.h"
#include "qs8_dwconv_cases.h"
#include "store_tail.h"
#include "unroll.h"

/* Reads up to 15 bytes beyond the channels (PK_OVERREAD). */
PK_INLINE void interleave(const int8_t *const *rows, const int count, size_t offset,
                          __m256i columns[2])
{
    const __m128i a = _mm_loadu_si128((const __m128i *)(rows[0] + offset));
    if (count == 1) { /* the upper halves, all signs, meet weights of zero */
        columns[0] = _mm256_cvtepi8_epi32(a);
        columns[1] = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a));
        return;
    }
    const __m128i b = _mm_loadu_si128((const __m128i *)(rows[1] + offset));
    columns[0] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
    columns[1] = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
}

PK_INLINE __m256i multiply_add(__m256i sums, __m256i x, const char *taps)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(x, _mm256_loadu_si256((const __m256i *)taps)));
}

PK_INLINE __m256i quantized(__m256i sums, __m256 scale, __m256 max)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale), max));
}

PK_INLINE void block(const struct pk_qs8_dwblock *b, const int outputs, const int width,
                     const int stride, const int shared)
{
    const char *const packed = b->packed;
    const float *const scales = (const float *)(packed + 64);
    const char *taps = packed + 128;
    const size_t columns_of = b->groups * 2, offset = b->offset;
    __m256i sums[PK_QS8_DW_OUTPUTS][2];
    PK_UNROLL
    for (int o = 0; o < outputs; o++) {
        sums[o][0] = _mm256_loadu_si256((const __m256i *)packed);
        sums[o][1] = _mm256_loadu_si256((const __m256i *)(packed + 32));
    }
    if (shared) {
        const int groups = (width + 1) / 2; /* of a square kernel */
        PK_UNROLL
        for (int g = 0; g < groups; g++) {
            const int8_t *const *rows = b->rows + 2 * g;
            const int count = width - 2 * g < 2 ? 1 : 2;
            PK_UNROLL
            for (int c = 0; c < (outputs - 1) * stride + width; c++) {
                __m256i column[2];
                interleave(rows + c * 2 * groups, count, offset, column);
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    const int x = c - o * stride;
                    if (x < 0 || x >= width)
                        continue;
                    sums[o][0] = multiply_add(sums[o][0], column[0], taps + 64 * x);
                    sums[o][1] = multiply_add(sums[o][1], column[1], taps + 64 * x + 32);
                }
            }
            taps += 64 * width;
        }
    } else {
        for (size_t g = 0; g < b->groups; g++) {
            const int8_t *const *rows = b->rows + 2 * g;
            for (size_t x = 0; x < b->kernel_width; x++, taps += 64) {
                PK_UNROLL
                for (int o = 0; o < outputs; o++) {
                    __m256i column[2];
                    interleave(rows + (o * b->output_step + x * b->tap_step) * columns_of, 2, offset, column);
                    sums[o][0] = multiply_add(sums[o][0], column[0], taps);
                    sums[o][1] = multiply_add(sums[o][1], column[1], taps + 32);
                }
            }
        }
    }
    const __m256 max = _mm256_set1_ps((float)(b->max - b->zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)b->zero_point);
    const __m128i min = _mm_set1_epi8((char)b->min);
    const __m256 scale0 = _mm256_loadu_ps(scales), scale1 = _mm256_loadu_ps(scales + 8);
    PK_UNROLL
    for (int o = 0; o < outputs; o++) {
        __m256i words = _mm256_packs_epi32(quantized(sums[o][0], scale0, max),
                                           quantized(sums[o][1], scale1, max));
        words = _mm256_permute4x64_epi64(_mm256_adds_epi16(words, zero_point), 0xd8);
        const __m128i bytes = _mm_max_epi8(
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)),
            min);
        pk_store_tail(b->output + (size_t)o * b->output_stride, bytes, b->channels);
    }
}

static void run(const struct pk_qs8_dwblock *b, size_t outputs, size_t stride, int shared)
{
    PK_QS8_DW_CASES(block)
}

static size_t channel(size_t width, size_t at)
{
    (void)width;
    return at;
}

const struct pk_qs8_dwkernels pk_qs8_dw_avx2 = {
    .name = "avx2", .depth = 2, .flip = 0, .weight = 2, .outputs = PK_QS8_DW_OUTPUTS, .widths = {16, 16, 16},
    .runs = {run, run, run}, .channel = channel,
};
