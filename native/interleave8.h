/* Planes of bytes to pixels: [batch][planes][pixels] -> [batch][pixels][planes], as images that come
 * with their channels apart are brought into the order of convolutions. */
#ifndef PENSTOCK_INTERLEAVE8_H
#define PENSTOCK_INTERLEAVE8_H

#include "core.h"

struct pk_interleave8 {
    uint32_t isa;
    size_t batch, planes, pixels, threads;
};

struct pk_interleave8_task {
    struct pk_interleave8 interleave;
    const uint8_t *input;
    uint8_t *output;
};

#if PK_X86
/* Three planes, `plane` bytes apart; returns how many pixels it has made. */
size_t pk_interleave8_three_avx2(uint8_t *to, const uint8_t *from, size_t plane, size_t count);
#elif PK_ARM
size_t pk_interleave8_three_neon(uint8_t *to, const uint8_t *from, size_t plane, size_t count);
#endif

PK_EXPORT void pk_interleave8_run(const struct pk_interleave8_task *task,
                                  const struct pk_pool *pool);
PK_EXPORT const char *pk_interleave8_kernel(uint32_t isa);
#endif
