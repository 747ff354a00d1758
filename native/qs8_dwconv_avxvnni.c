/* int8 depthwise convolution with AVX-VNNI: blocks of 32 or up to 16 channels. */
#include "qs8_dwconv.h"
#include "qs8_dwconv_cases.h"
#include "store_tail.h"
#include "unroll.h"

#if defined(__AVXVNNI__)
#define VNNI(x) _##x##_dpbusd_avx_epi32
#else
#define VNNI(x) _##x##_dpbusd_epi32 /* the same, in AVX-512's encoding: for tests */
#endif

#define NAME(x) x##_256
#define OP(x) _mm256_##x
#define VECTOR __m256i
#define FLOATS __m256
#define WIDTH 32
#define XOR _mm256_xor_si256
#define LOAD(p) _mm256_loadu_si256(p)
#define LOAD_FLOATS(p) _mm256_loadu_ps((const float *)(p))
#define DOT VNNI(mm256)
PK_INLINE __m256i load_256(const int8_t *from, size_t channels)
{
    (void)channels;
    return _mm256_loadu_si256((const __m256i *)from);
}
PK_INLINE void store_256(int8_t *to, __m256i bytes, size_t channels)
{
    (void)channels;
    _mm256_storeu_si256((__m256i *)to, bytes);
}
#include "qs8_dwconv_vnni.h"
#undef NAME
#undef OP
#undef VECTOR
#undef FLOATS
#undef WIDTH
#undef XOR
#undef LOAD
#undef LOAD_FLOATS
#undef DOT

#define NAME(x) x##_128
#define OP(x) _mm_##x
#define VECTOR __m128i
#define FLOATS __m128
#define WIDTH 16
#define XOR _mm_xor_si128
#define LOAD(p) _mm_loadu_si128(p)
#define LOAD_FLOATS(p) _mm_loadu_ps((const float *)(p))
#define DOT VNNI(mm)
/* Reads up to 15 bytes beyond the channels (PK_OVERREAD). */
PK_INLINE __m128i load_128(const int8_t *from, size_t channels)
{
    (void)channels;
    return _mm_loadu_si128((const __m128i *)from);
}
PK_INLINE void store_128(int8_t *to, __m128i bytes, size_t channels)
{
    pk_store_tail(to, bytes, channels);
}
#include "qs8_dwconv_vnni.h"

/* Interleaving works within 128 bits: vector j has of each 16 channels those from 4 j on. */
static size_t channel(size_t width, size_t at)
{
    const size_t lanes = width / 4, j = at / lanes, i = at % lanes;
    return i / 4 * 16 + 4 * j + i % 4;
}

const struct pk_qs8_dwkernels pk_qs8_dw_avxvnni = {
    .name = "avxvnni", .depth = 4, .flip = 128, .weight = 1, .outputs = PK_QS8_DW_OUTPUTS, .widths = {32, 32, 16},
    .runs = {run_256, run_256, run_128}, .channel = channel,
};
