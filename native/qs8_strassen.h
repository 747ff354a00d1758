/* Products of many rows with int8 weights by Strassen's algorithm, in Winograd's form, twice: 49
 * products of blocks in place of 64, for instruction sets that multiply int16 and not int8.
 *
 * It is exact. What is multiplied is a sum of at most 16 values of 8 bits on either side, so 12 bits;
 * the sums that come back are the true ones modulo 2^32, and the true ones fit.
 */
#ifndef PENSTOCK_QS8_STRASSEN_H
#define PENSTOCK_QS8_STRASSEN_H

#include "qs8_parts.h"

/* Whether it may ever do `conv`, or one with more output channels, a part of which `conv` packs. */
int pk_qs8_strassen_packs(const struct pk_qs8_conv *conv);
/* The own products of the channels (qs8_multiply_avx2.h), for each of the four rows of a quad. */
void pk_qs8_strassen_pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l,
                              void *packed);
/* Whether it can do `conv`, and is worth the additions. */
int pk_qs8_strassen_suits(const struct pk_qs8_conv *conv);
size_t pk_qs8_strassen_scratch_size(const struct pk_qs8_conv *conv);
/* The packed weights are those for AVX2. The values are those of the caller, int8, or, for a dynamic
 * product, int16. `rows` is NULL but for a dynamic product. */
void pk_qs8_strassen_run(const struct pk_qs8_conv *conv, const struct pk_qs8_product *product,
                         const struct pk_pool *pool);
#endif
