/* A function of one byte, by a table: what a chain of elementwise nodes between two int8 values is. */
#ifndef PENSTOCK_LUT8_H
#define PENSTOCK_LUT8_H

#include "core.h"

struct pk_lut8 {
    uint32_t isa;
    size_t count, threads;
};

/* `table`: for each byte, taken as unsigned, the answer. */
struct pk_lut8_task {
    struct pk_lut8 lut;
    const uint8_t *table;
    const uint8_t *input;
    uint8_t *output;
};

typedef void (*pk_lut8_kernel_function)(uint8_t *to, const uint8_t *from, size_t count,
                                        const uint8_t *table);

void pk_lut8_scalar(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table);
#if PK_X86
void pk_lut8_avx2(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table);
void pk_lut8_avx512vbmi(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table);
#elif PK_ARM
void pk_lut8_neon(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table);
#endif

PK_EXPORT void pk_lut8_run(const struct pk_lut8_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_lut8_kernel(uint32_t isa);
#endif
