/* The blocks of Strassen's algorithm in Winograd's form with AVX2. See qs8_strassen_avx2.c. */
#ifndef PENSTOCK_QS8_STRASSEN_BLOCKS_H
#define PENSTOCK_QS8_STRASSEN_BLOCKS_H

#include "qs8_parts.h"
#include "unroll.h"

#include <immintrin.h>

/* Bytes of the channels' own products (qs8_multiply_avx2.h), which are at the end of each panel. */
#define STRASSEN_OWN (8 * 4 * 4)

/* Factor `i` of the seven products on the left side, from the blocks of a 2x2 matrix. */
PK_INLINE __m256i left_factor(const int i, const __m256i a[4])
{
    const __m256i lower = _mm256_add_epi16(a[2], a[3]), all = _mm256_sub_epi16(lower, a[0]);
    switch (i) {
    case 0:
        return a[0];
    case 1:
        return a[1];
    case 2:
        return _mm256_sub_epi16(a[1], all);
    case 3:
        return a[3];
    case 4:
        return lower;
    case 5:
        return all;
    default:
        return _mm256_sub_epi16(a[0], a[2]);
    }
}

/* ... and on the right side. */
PK_INLINE __m256i right_factor(const int i, const __m256i b[4])
{
    const __m256i upper = _mm256_sub_epi16(b[1], b[0]), all = _mm256_sub_epi16(b[3], upper);
    switch (i) {
    case 0:
        return b[0];
    case 1:
        return b[2];
    case 2:
        return b[3];
    case 3:
        return _mm256_sub_epi16(all, b[2]);
    case 4:
        return upper;
    case 5:
        return all;
    default:
        return _mm256_sub_epi16(b[3], b[1]);
    }
}

/* The blocks of the result from the seven products. */
PK_INLINE void join(const __m256i p[7], __m256i out[4])
{
    const __m256i two = _mm256_add_epi32(p[0], p[5]), three = _mm256_add_epi32(two, p[6]);
    out[0] = _mm256_add_epi32(p[0], p[1]);
    out[1] = _mm256_add_epi32(_mm256_add_epi32(two, p[4]), p[2]);
    out[2] = _mm256_sub_epi32(three, p[3]);
    out[3] = _mm256_add_epi32(three, p[4]);
}

/* The four blocks of outer factor `i` from the weights of four panels, one of each column of blocks,
 * `at` bytes from where these point to; `quarter`: bytes of a quarter of the inputs. */
PK_INLINE void outer_right(const int i, const char *const columns[4], const size_t quarter,
                           const size_t at, __m256i inner[4])
{
    PK_UNROLL
    for (int block = 0; block < 4; block++) {
        __m256i b[4];
        PK_UNROLL
        for (int o = 0; o < 4; o++) {
            const char *const column = columns[o % 2 * 2 + block % 2];
            const size_t row = (size_t)(o / 2 * 2 + block / 2);
            b[o] = _mm256_cvtepi8_epi16(
                _mm_load_si128((const __m128i *)(column + row * quarter + at)));
        }
        inner[block] = right_factor(i, b);
    }
}

/* The weights of a group; of what is no panel, the last one's, whose outputs are not stored. */
static inline void panels_of(const struct pk_qs8_layout *l, const char *packed, size_t group,
                             const char *panels[8])
{
    for (size_t i = 0; i < 8; i++)
        panels[i] = packed + pk_min(8 * group + i, l->panels - 1) * l->panel + l->header;
}

#endif
