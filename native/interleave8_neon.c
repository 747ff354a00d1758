/* Three planes of bytes to pixels: 16 pixels a step. */
#include "interleave8.h"

#include <arm_neon.h>

size_t pk_interleave8_three_neon(uint8_t *to, const uint8_t *from, size_t plane, size_t count)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const uint8x16x3_t pixels = {
            {vld1q_u8(from + i), vld1q_u8(from + plane + i), vld1q_u8(from + 2 * plane + i)}};
        vst3q_u8(to + 3 * i, pixels);
    }
    return i;
}
