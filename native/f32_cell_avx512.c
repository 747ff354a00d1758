/* Steps of recurrent layers: AVX-512. */
#include "core.h"

#include <immintrin.h>

#define PK_LANES 16

#define fused(a, b, c) _mm512_fmadd_ps(a, b, c)

/* 2 to the power of i / 32. */
static const float powers[32] __attribute__((aligned(64))) = {
    0x1.000000p+0f, 0x1.059B0Ep+0f, 0x1.0B5586p+0f, 0x1.11301Ep+0f, 0x1.172B84p+0f, 0x1.1D4874p+0f,
    0x1.2387A6p+0f, 0x1.29E9E0p+0f, 0x1.306FE0p+0f, 0x1.371A74p+0f, 0x1.3DEA64p+0f, 0x1.44E086p+0f,
    0x1.4BFDAEp+0f, 0x1.5342B6p+0f, 0x1.5AB07Ep+0f, 0x1.6247ECp+0f, 0x1.6A09E6p+0f, 0x1.71F75Ep+0f,
    0x1.7A1148p+0f, 0x1.82589Ap+0f, 0x1.8ACE54p+0f, 0x1.93737Cp+0f, 0x1.9C4918p+0f, 0x1.A5503Cp+0f,
    0x1.AE89FAp+0f, 0x1.B7F770p+0f, 0x1.C199BEp+0f, 0x1.CB720Ep+0f, 0x1.D5818Ep+0f, 0x1.DFC974p+0f,
    0x1.EA4AFAp+0f, 0x1.F50766p+0f,
};

/* XNNPACK's table, polynomial and order of operations: e to the power of -|x| first. */
PK_INLINE __m512 sigmoid_of(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f), magic = _mm512_set1_ps(0x1.8p18f);
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    const __m512 z = _mm512_castsi512_ps(_mm512_or_epi32(_mm512_castps_si512(x), sign));
    const __m512 shifted = _mm512_fmadd_ps(z, _mm512_set1_ps(0x1.715476p0f), magic);
    const __m512 power = _mm512_permutex2var_ps(_mm512_load_ps(powers), _mm512_castps_si512(shifted),
                                                _mm512_load_ps(powers + 16));
    const __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 t = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62E430p-1f), z);
    t = _mm512_fmadd_ps(n, _mm512_set1_ps(0x1.05C61p-29f), t);
    const __m512 p = _mm512_fmadd_ps(t, _mm512_set1_ps(0.5f), _mm512_set1_ps(0x1.0000F6p0f));
    const __m512 e = _mm512_scalef_ps(_mm512_fmadd_ps(_mm512_mul_ps(t, power), p, power), n);
    const __m512 f = _mm512_div_ps(e, _mm512_add_ps(e, one));
    return _mm512_mask_sub_ps(f, _mm512_testn_epi32_mask(_mm512_castps_si512(x), sign), one, f);
}

#define PK_OWN_SIGMOID
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_avx512 = {"avx512", cell};
