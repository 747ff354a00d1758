/* What the processor and the operating system support. */
#include "core.h"

#if PK_X86
#include <cpuid.h>
#elif PK_ARM && defined(__APPLE__)
#include <sys/sysctl.h>
#elif PK_ARM && defined(__linux__)
#include <sys/auxv.h>
#endif

PK_EXPORT uint32_t pk_abi_version(void)
{
    return PK_ABI_VERSION;
}

#if PK_X86

/* The states that the operating system saves when it switches threads. */
static uint64_t saved_states(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#define HAS(register, bits) (((register) & (bits)) == (bits))

/* A mask of enum pk_isa: all that can be used here. */
PK_EXPORT uint32_t pk_detect_isa(void)
{
    uint32_t mask = PK_ISA_SCALAR;
    uint32_t a, b, c, d, features, extended, extended_c, more = 0;
    if (!__get_cpuid(1, &a, &b, &features, &d))
        return mask;
    const uint32_t osxsave_avx_fma_f16c = 1u << 27 | 1u << 28 | 1u << 12 | 1u << 29;
    if (!HAS(features, osxsave_avx_fma_f16c))
        return mask;
    if (!__get_cpuid_count(7, 0, &a, &extended, &extended_c, &d))
        return mask;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        more = a;
    const uint64_t states = saved_states();
    if (!HAS(states, 0x6) || !HAS(extended, 1u << 5))
        return mask;
    mask |= PK_ISA_AVX2;
    if (HAS(more, 1u << 4))
        mask |= PK_ISA_AVXVNNI;
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if (!HAS(states, 0xe6) || !HAS(extended, f_dq_bw_vl))
        return mask;
    mask |= PK_ISA_AVX512;
    if (HAS(extended_c, 1u << 11))
        mask |= PK_ISA_AVX512VNNI;
    if (HAS(extended_c, 1u << 1))
        mask |= PK_ISA_AVX512VBMI;
    return mask;
}

/* The caches that leaf `leaf` of cpuid describes (4 of Intel's, 0x8000001d of AMD's). */
static void caches_of_leaf(uint32_t leaf, struct pk_caches *caches)
{
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t a, b, c, d;
        if (!__get_cpuid_count(leaf, i, &a, &b, &c, &d) || (a & 0x1f) == 0)
            return;
        const size_t ways = (b >> 22) + 1, partitions = (b >> 12 & 0x3ff) + 1;
        const size_t size = ways * partitions * ((b & 0xfff) + 1) * ((size_t)c + 1);
        const uint32_t type = a & 0x1f, level = a >> 5 & 0x7;
        if (type == 2) /* instructions */
            continue;
        if (level == 1)
            caches->l1 = size;
        else if (level == 2)
            caches->l2 = size;
        else if (level == 3)
            caches->l3 = size;
    }
}

PK_EXPORT void pk_detect_caches(struct pk_caches *caches)
{
    *caches = (struct pk_caches){0, 0, 0};
    caches_of_leaf(4, caches);
    if (!caches->l1)
        caches_of_leaf(0x8000001du, caches);
}

#elif PK_ARM && defined(__APPLE__)

static uint64_t system_value(const char *name)
{
    uint64_t value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 ? value : 0;
}

PK_EXPORT uint32_t pk_detect_isa(void)
{
    uint32_t mask = PK_ISA_SCALAR | PK_ISA_NEON;
    if (system_value("hw.optional.arm.FEAT_DotProd"))
        mask |= PK_ISA_DOTPROD;
    if (system_value("hw.optional.arm.FEAT_I8MM"))
        mask |= PK_ISA_I8MM;
    return mask;
}

/* Of the fast cores; level 2 is shared by a few of them. */
PK_EXPORT void pk_detect_caches(struct pk_caches *caches)
{
    *caches = (struct pk_caches){system_value("hw.perflevel0.l1dcachesize"),
                                 system_value("hw.perflevel0.l2cachesize"), 0};
}

#elif PK_ARM && defined(__linux__)

PK_EXPORT uint32_t pk_detect_isa(void)
{
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    uint32_t mask = PK_ISA_SCALAR;
    if (!(first & 1ul << 1)) /* ASIMD */
        return mask;
    mask |= PK_ISA_NEON;
    if (first & 1ul << 20) /* ASIMDDP */
        mask |= PK_ISA_DOTPROD;
    if (second & 1ul << 13) /* I8MM */
        mask |= PK_ISA_I8MM;
    return mask;
}

/* The registers that describe them are the system's own. */
PK_EXPORT void pk_detect_caches(struct pk_caches *caches)
{
    *caches = (struct pk_caches){0, 0, 0};
}

#else

PK_EXPORT uint32_t pk_detect_isa(void)
{
    return PK_ISA_SCALAR;
}

PK_EXPORT void pk_detect_caches(struct pk_caches *caches)
{
    *caches = (struct pk_caches){0, 0, 0};
}

#endif
