/* Bytes through a table with NEON: four tables of 64, each of which answers for the bytes of its 64. */
#include "lut8.h"

#include <arm_neon.h>

void pk_lut8_neon(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table)
{
    const uint8x16x4_t first = vld1q_u8_x4(table), second = vld1q_u8_x4(table + 64);
    const uint8x16x4_t third = vld1q_u8_x4(table + 128), fourth = vld1q_u8_x4(table + 192);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const uint8x16_t x = vld1q_u8(from + i);
        uint8x16_t found = vqtbl4q_u8(first, x);
        found = vqtbx4q_u8(found, second, veorq_u8(x, vdupq_n_u8(64)));
        found = vqtbx4q_u8(found, third, veorq_u8(x, vdupq_n_u8(128)));
        found = vqtbx4q_u8(found, fourth, veorq_u8(x, vdupq_n_u8(192)));
        vst1q_u8(to + i, found);
    }
    for (; i < count; i++)
        to[i] = table[from[i]];
}
