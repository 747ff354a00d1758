/* int8 sums of outer products with SME (SMOPA), tile by tile, read back in two ways, against plain C;
 * beside them fp32's (FMOPA). Tells whether a processor, or what emulates it, computes them rightly:
 *
 *     aarch64-linux-gnu-gcc -static -O2 sme.c -o sme && qemu-aarch64 -cpu max ./sme
 */
__asm__(".arch armv9-a+sme");
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int8_t a[256 * 4], b[256 * 4];
static int32_t got[64 * 64], want[64 * 64];

static size_t svl_words(void) { uint64_t n; __asm__ volatile(".arch armv9-a+sme\n rdsvl %0, #1" : "=r"(n)); return n / 4; }

/* All vector registers, which streaming mode clears. */
#define VECTORS                                                                                   \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",  \
      "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",  \
      "v28", "v29", "v30", "v31"
#define OPERANDS "r"(a), "r"(b), "r"(out), "r"(n) : "x9", "x12", "memory", "cc", VECTORS
#define BEGIN ".arch armv9-a+sme\n smstart\n ptrue p0.b\n zero {za}\n "

/* za<tile>.s = a (4-way) x b, rows stored with ST1W of horizontal slices. */
#define CASE(T)                                                                                   \
  static void smopa_##T(const int8_t *a, const int8_t *b, int32_t *out, size_t n) {               \
    __asm__ volatile(BEGIN "ld1b {z0.b}, p0/z, [%0]\n"                                            \
      "ld1b {z1.b}, p0/z, [%1]\n smopa za" #T ".s, p0/m, p0/m, z0.b, z1.b\n mov w12, #0\n"         \
      "mov x9, %2\n 1: st1w {za" #T "h.s[w12, 0]}, p0, [x9]\n add x9, x9, %3, lsl #2\n"            \
      "add w12, w12, #1\n cmp x12, %3\n b.lt 1b\n smstop\n"                                        \
      :: OPERANDS); }                                                                             \
  static void mova_##T(const int8_t *a, const int8_t *b, int32_t *out, size_t n) {                \
    __asm__ volatile(BEGIN "ld1b {z0.b}, p0/z, [%0]\n"                                            \
      "ld1b {z1.b}, p0/z, [%1]\n smopa za" #T ".s, p0/m, p0/m, z0.b, z1.b\n mov w12, #0\n"         \
      "mov x9, %2\n 1: mova z2.s, p0/m, za" #T "h.s[w12, 0]\n st1w {z2.s}, p0, [x9]\n"             \
      "add x9, x9, %3, lsl #2\n add w12, w12, #1\n cmp x12, %3\n b.lt 1b\n smstop\n"               \
      :: OPERANDS); }                                                                             \
  static void fmopa_##T(const float *a, const float *b, float *out, size_t n) {                   \
    __asm__ volatile(BEGIN "ld1w {z0.s}, p0/z, [%0]\n"                                            \
      "ld1w {z1.s}, p0/z, [%1]\n fmopa za" #T ".s, p0/m, p0/m, z0.s, z1.s\n mov w12, #0\n"         \
      "mov x9, %2\n 1: st1w {za" #T "h.s[w12, 0]}, p0, [x9]\n add x9, x9, %3, lsl #2\n"            \
      "add w12, w12, #1\n cmp x12, %3\n b.lt 1b\n smstop\n"                                        \
      :: OPERANDS); }
CASE(0) CASE(1) CASE(2) CASE(3)

static void report(const char *name, size_t n) {
  size_t wrong = 0, first = n * n;
  for (size_t i = 0; i < n * n; i++) if (got[i] != want[i]) { if (!wrong) first = i; wrong++; }
  printf("%s: %zu of %zu wrong", name, wrong, n * n);
  if (wrong) printf(" (first at row %zu column %zu: %d, expected %d)", first / n, first % n, got[first], want[first]);
  printf("\n");
}

int main(void) {
  const size_t n = svl_words();
  printf("streaming vector: %zu bits\n", n * 32);
  for (size_t i = 0; i < 4 * n; i++) { a[i] = (int8_t)(i * 37 % 255 - 127); b[i] = (int8_t)(i * 91 % 255 - 127); }
  for (size_t i = 0; i < n; i++) for (size_t j = 0; j < n; j++) {
    int32_t s = 0; for (int k = 0; k < 4; k++) s += a[4 * i + k] * b[4 * j + k]; want[i * n + j] = s; }
  void (*const one[])(const int8_t *, const int8_t *, int32_t *, size_t) = {smopa_0, smopa_1, smopa_2, smopa_3, mova_0, mova_1, mova_2, mova_3};
  for (int t = 0; t < 8; t++) { char name[40]; memset(got, 0, sizeof got); one[t](a, b, got, n);
    snprintf(name, sizeof name, "smopa za%d.s, read with %s", t % 4, t < 4 ? "st1w" : "mova"); report(name, n); }
  static float fa[64], fb[64], fgot[64 * 64];
  void (*const fone[])(const float *, const float *, float *, size_t) = {fmopa_0, fmopa_1, fmopa_2, fmopa_3};
  for (size_t i = 0; i < n; i++) { fa[i] = (float)i - 3; fb[i] = 2 * (float)i + 1; }
  for (size_t i = 0; i < n; i++) for (size_t j = 0; j < n; j++) want[i * n + j] = (int32_t)(fa[i] * fb[j]);
  for (int t = 0; t < 4; t++) { char name[40]; fone[t](fa, fb, fgot, n);
    for (size_t i = 0; i < n * n; i++) got[i] = (int32_t)fgot[i];
    snprintf(name, sizeof name, "fmopa za%d.s, read with st1w", t); report(name, n); }
  return 0;
}
