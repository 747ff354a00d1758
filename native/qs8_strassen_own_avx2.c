/* What is to be taken back of products by Strassen's algorithm: the channels' own products. They are
 * made as the products are, of blocks, and their sums put together as the outputs are.
 * See qs8_multiply_avx2.h. */
#include "qs8_strassen.h"
#include "qs8_strassen_blocks.h"

/* What the own products of the channels of outer factor `i` put into the four blocks of outputs. */
PK_INLINE void own_of_right(const int i, const char *const panels[8], int panel, size_t depth,
                            __m256i blocks[4])
{
    __m256i products[7];
    PK_UNROLL
    for (int j = 0; j < 7; j++)
        products[j] = _mm256_setzero_si256();
    const char *columns[4] = {panels[panel], panels[2 + panel], panels[4 + panel],
                              panels[6 + panel]};
    const size_t quarter = depth / 2 * 16;
    for (size_t k = 0; k + 2 <= depth / 2; k += 2) {
        __m256i first[4], second[4];
        outer_right(i, columns, quarter, 0, first);
        outer_right(i, columns, quarter, 16, second);
        PK_UNROLL
        for (int c = 0; c < 4; c++)
            columns[c] += 32;
        PK_UNROLL
        for (int j = 0; j < 7; j++)
            products[j] = _mm256_add_epi32(
                products[j], _mm256_madd_epi16(right_factor(j, first), right_factor(j, second)));
    }
    join(products, blocks);
}

void pk_qs8_strassen_pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l,
                              void *packed)
{
    const size_t depth = conv->group_input / 4, groups = pk_divide_up(l->panels, 8);
    for (size_t group = 0; group < groups; group++) {
        const char *panels[8];
        panels_of(l, packed, group, panels);
        for (int panel = 0; panel < 2; panel++) {
            __m256i inner[4][7];
#define OUTER(i)                                                                                   \
    do {                                                                                           \
        __m256i blocks[4];                                                                         \
        own_of_right(i, panels, panel, depth, blocks);                                             \
        for (int block = 0; block < 4; block++)                                                    \
            inner[block][i] = blocks[block];                                                       \
    } while (0)
            OUTER(0);
            OUTER(1);
            OUTER(2);
            OUTER(3);
            OUTER(4);
            OUTER(5);
            OUTER(6);
#undef OUTER
            for (int block = 0; block < 4; block++) {
                __m256i blocks[4];
                join(inner[block], blocks);
                for (int o = 0; o < 4; o++) {
                    const int row = o / 2 * 2 + block / 2, column = o % 2 * 2 + block % 2;
                    const size_t index = 8 * group + (size_t)(2 * column + panel);
                    if (index < l->panels)
                        _mm256_store_si256((__m256i *)((char *)packed + (index + 1) * l->panel -
                                                       STRASSEN_OWN + row * 8 * 4),
                                           blocks[o]);
                }
            }
        }
    }
}

