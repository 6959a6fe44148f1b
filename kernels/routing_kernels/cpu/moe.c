/* The entry points: which instruction sets this processor has, and one call of the expert layer. */
#include "moe.h"
#include <stdlib.h>
#include <string.h>
#ifdef RK_HAS_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define SCRATCH_BYTES ((int64_t)128 << 20) /* longer inputs go through in stretches of tokens */
#define MACS_PER_THREAD 500000             /* less work than this is not worth waking a thread for */

#ifdef RK_HAS_AMX
/* Whether the processor has tiles with bfloat16, the system saves them, and this process may use them. The eight kilobytes of
   tiles are a thread's only after the process has asked (arch_prctl ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA). */
static int amx_permitted(void) {
    unsigned a, b, c, d, low, high;
    const unsigned tiles = 1u << 24, bfloat16 = 1u << 22, os_saves = 1u << 27, saved = 3u << 17;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & os_saves)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & tiles) || !(d & bfloat16)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & saved) == saved && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#endif

/* 1 where this build holds the instruction set and the processor, and its system, can run it. */
EXPORT int rk_isa_available(int isa) {
#ifdef RK_X86
    __builtin_cpu_init();
    if (isa == RK_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
               __builtin_cpu_supports("bmi2");
    if (isa == RK_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#ifdef RK_HAS_AMX
    static int amx = -1; /* asking the processor anew at every call would cost more than a small layer */
    if (isa == RK_AMX) {
        int known = __atomic_load_n(&amx, __ATOMIC_RELAXED);
        if (known < 0) {
            known = rk_isa_available(RK_AVX512) && amx_permitted() && rk_amx_agrees();
            __atomic_store_n(&amx, known, __ATOMIC_RELAXED);
        }
        return known;
    }
#endif
    if (isa == RK_AMX_EMULATED) return rk_amx_emulated_agrees();
    return isa == RK_PORTABLE;
}

typedef void (*rk_moe_run)(const rk_moe_call *, const rk_moe_stretch *);

static rk_moe_run run_of(int64_t isa) {
    if (isa == RK_AMX_EMULATED) return rk_moe_run_amx_emulated;
#ifdef RK_HAS_AMX
    if (isa == RK_AMX) return rk_moe_run_amx;
#endif
#ifdef RK_X86
    if (isa == RK_AVX512) return rk_moe_run_avx512;
    if (isa == RK_AVX2) return rk_moe_run_avx2;
#endif
    return rk_moe_run_portable;
}

/* Sorts the stretch's slots by expert, keeping their order within one, and counts what is dropped. */
static void sort_slots(const rk_moe_call *call, rk_moe_stretch *s, int64_t *next, int64_t *expert, int64_t *begin,
                       int64_t *token, int64_t *place) {
    const int64_t slots = s->tokens * call->top_k, *ids = call->ids + s->first * call->top_k;
    memset(next, 0, (size_t)call->experts * sizeof *next);
    for (int64_t i = 0; i < slots; i++) {
        if (ids[i] >= 0 && ids[i] < call->experts) next[ids[i]]++;
        else (*call->dropped)++;
    }
    s->slots = s->active = 0;
    for (int64_t e = 0; e < call->experts; e++) {
        const int64_t count = next[e];
        next[e] = s->slots;
        if (!count) continue;
        call->counts[e] += count;
        expert[s->active] = e;
        begin[s->active++] = s->slots;
        s->slots += count;
    }
    begin[s->active] = s->slots;
    for (int64_t i = 0; i < slots; i++) {
        place[i] = -1;
        if (ids[i] < 0 || ids[i] >= call->experts) continue;
        place[i] = next[ids[i]]++;
        token[place[i]] = i / call->top_k;
    }
    s->expert = expert;
    s->begin = begin;
    s->token = token;
    s->place = place;
}

EXPORT int rk_moe_experts(const rk_moe_call *call) {
    if (!rk_isa_available((int)call->isa)) return RK_NO_SUCH_ISA;
    memset(call->counts, 0, (size_t)call->experts * sizeof *call->counts);
    *call->dropped = 0;
    if (!call->tokens) return RK_OK;
    rk_moe_stretch s = {.hidden_pad = rk_padded(call->hidden), .width_pad = rk_padded(call->width)};
    const int tiled = call->dtype == RK_BF16 && (call->isa == RK_AMX || call->isa == RK_AMX_EMULATED);
    const int widen = !tiled && (call->dtype != RK_F32 || call->hidden % RK_PAD);
    s.hidden_deep = tiled ? (call->hidden + 31) / 32 * 32 : 0;
    s.width_deep = tiled ? (call->width + 31) / 32 * 32 : 0;
    const int64_t per_slot = s.width_pad + s.hidden_pad + s.hidden_deep / 2 + s.width_deep; /* floats, each two bfloat16 */
    const int64_t per_token = (call->top_k * per_slot + widen * s.hidden_pad + rk_padded(call->top_k)) * 4;
    int64_t most = SCRATCH_BYTES / (per_token > 0 ? per_token : 1);
    if (most < 1) most = 1;
    if (most > call->tokens) most = call->tokens;

    /* One block: the float rows first, each a multiple of 64 bytes, then the integers. */
    const int64_t slots = most * call->top_k, floats = most * per_token / 4;
    const int64_t integers = 3 * call->experts + 1 + 2 * slots;
    const size_t bytes = (size_t)floats * sizeof(float) + (size_t)integers * sizeof(int64_t);
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!block) return RK_NO_MEMORY;
    s.h = block;
    s.o = s.h + slots * s.width_pad;
    s.weight = s.o + slots * s.hidden_pad;
    s.x = widen ? s.weight + most * rk_padded(call->top_k) : NULL;
    s.packed_x = tiled ? (uint16_t *)(s.weight + most * rk_padded(call->top_k)) : NULL;
    s.packed_h = tiled ? s.packed_x + slots * s.hidden_deep : NULL;
    int64_t *next = (int64_t *)((float *)block + floats), *expert = next + call->experts;
    int64_t *begin = expert + call->experts, *token = begin + call->experts + 1, *place = token + slots;

    const rk_moe_run run = run_of(call->isa);
    for (s.first = 0; s.first < call->tokens; s.first += most) {
        s.tokens = call->tokens - s.first < most ? call->tokens - s.first : most;
        sort_slots(call, &s, next, expert, begin, token, place);
        const int64_t worth = s.slots * call->hidden * call->width * 3 / MACS_PER_THREAD;
        const int threads = (int)(worth < call->threads ? worth : call->threads);
        if (threads < 2) {
            run(call, &s);
        } else {
#pragma omp parallel num_threads(threads)
            run(call, &s);
        }
    }
    free(block);
    return RK_OK;
}
