/* A plugin of QEMU's (version 1 of its interface) that counts the instructions of an aarch64 program by
 * kind, each time that the program asks for the priorities of a scheduler that there is not: MARK. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define SCHED_GET_PRIORITY_MAX 125
#define MARK 7701

/* What of qemu-plugin.h is needed. */
typedef uint64_t plugin_id;
struct tb;
struct insn;
size_t qemu_plugin_tb_n_insns(const struct tb *);
struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t);
const void *qemu_plugin_insn_data(const struct insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct tb *, int add, void *to, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t));
API int qemu_plugin_version = 1;

enum { ALL, VECTOR, MEMORY, MULTIPLY, KINDS };
static uint64_t counts[KINDS];
static char path[4096];

/* Of the products that kernels are made of: SDOT, SMMLA, FMLA and the widening ones of integers. */
static bool multiplies(uint32_t i)
{
    const uint32_t three = i & 0xbf20fc00u, element = i & 0xbf00f400u;
    return (i & 0xbf20fc00u & ~0x20000000u) == 0x0e009400u || /* SDOT, UDOT: vector */
           (i & 0xbfc0f400u) == 0x0f80e000u ||                /* SDOT by element */
           (i & 0xffe0fc00u) == 0x4e80a400u ||                /* SMMLA */
           (i & 0xbfa0fc00u) == 0x0e20cc00u ||                /* FMLA: vector */
           (i & 0xbf80f400u) == 0x0f801000u ||                /* FMLA by element */
           three == 0x0e208000u || three == 0x0e20c000u ||    /* SMLAL, SMULL */
           element == 0x0f002000u || element == 0x0f00a000u;  /* ... by element */
}

static void translated(plugin_id id, struct tb *tb)
{
    uint64_t found[KINDS] = {0};
    (void)id;
    for (size_t n = qemu_plugin_tb_n_insns(tb), i = 0; i < n; i++) {
        uint32_t code;
        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), 4);
        found[ALL]++;
        if ((code >> 25 & 7) == 7)
            found[VECTOR]++;
        if ((code >> 25 & 5) == 4) {
            const bool pair = (code >> 27 & 7) == 5, vector = code >> 26 & 1;
            /* Pairs of registers of 128 bits are two accesses. */
            found[MEMORY] += pair && vector && code >> 30 == 2 ? 2 : 1;
            /* Into one lane, or all: the vector's unit works too. */
            if ((code & 0xbf000000u) == 0x0d000000u)
                found[VECTOR]++;
        }
        if (multiplies(code))
            found[MULTIPLY]++;
    }
    for (int k = 0; k < KINDS; k++)
        if (found[k])
            qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &counts[k], found[k]);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != SCHED_GET_PRIORITY_MAX || a != MARK)
        return;
    FILE *file = fopen(path, "a");
    if (!file)
        return;
    for (int k = 0; k < KINDS; k++)
        fprintf(file, "%" PRIu64 "%c", counts[k], k + 1 < KINDS ? ' ' : '\n');
    fclose(file);
}

API int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0)
        return 1;
    snprintf(path, sizeof path, "%s", argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
