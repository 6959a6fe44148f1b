/* A linear layer for each slot, with the weights of the expert that it names, held either way round. Compiled once per
   instruction set (isa.h). Slots are sorted by expert; every number is written by one thread in a fixed order, and a
   slot's bits do not depend on the slots beside it. */
#include "isa.h"
#include <stdlib.h>

#define SCRATCH_BYTES ((int64_t)128 << 20) /* longer inputs go through in stretches */
#define PREFETCH_BYTES 512                 /* how far ahead a row is asked for */
#define ROW_BLOCK 32                       /* outputs of a task, where each has a row of the weight */
#define COLUMN_BLOCK 1024                  /* outputs of a task, where each has a column of it */
#define SLOT_GROUP 96                      /* slots that pass over a chunk of rows one after the other */
#define ROW_CHUNK 64                       /* rows that stay near while an expert's slots pass over them */
#define MACS_PER_THREAD 500000             /* less work than this is not worth waking a thread for */

typedef struct {
    const void *x;      /* [slots / sharing, depth], contiguous: slot i reads row i / sharing */
    const int64_t *ids; /* [slots] */
    const void *weight; /* [experts, outputs, depth], or transposed [experts, depth, outputs]; rows contiguous */
    const void *bias;   /* [experts, outputs], rows contiguous; NULL: none */
    void *y;            /* [slots, outputs], contiguous */
    int64_t slots, sharing, experts, depth, outputs;
    int64_t weight_expert, weight_row, bias_row, transposed;
    int64_t dtype, threads;
} rk_linear_call;

typedef struct {
    int64_t first, slots;          /* the stretch */
    int64_t depth_pad, outputs_pad;
    int64_t active;                /* experts that have any slot in it */
    int64_t *next, *expert, *begin; /* [experts], [experts], [experts + 1] into the order */
    int64_t *order;                /* [slots] by expert, counted from the stretch's first */
    float *x, *o, *bias;           /* [slots / sharing, depth_pad], [slots, outputs_pad], [threads, outputs_pad] */
    int32_t *rows;                 /* [depth] 0, 1, 2 ... */
} rk_linear_stretch;

#define WT float
#define LOAD_W vec_load_f32
#define NAME(x) x##_f32
#include "dots_tile.h"
#include "outer_tile.h"
#include "mlp_rows.h"

#define WT uint16_t
#define LOAD_W vec_load_bf16
#define NAME(x) x##_bf16
#include "dots_tile.h"
#include "outer_tile.h"
#include "mlp_rows.h"

#define WT uint16_t
#define LOAD_W vec_load_f16
#define NAME(x) x##_f16
#include "dots_tile.h"
#include "outer_tile.h"
#include "mlp_rows.h"

static const char *at_row(const rk_linear_call *call, int64_t expert, int64_t row) {
    const int64_t size = call->dtype == RK_F32 ? 4 : 2;
    return (const char *)call->weight + (expert * call->weight_expert + row * call->weight_row) * size;
}

static float *input_of(const rk_linear_call *call, const rk_linear_stretch *s, int64_t slot) {
    return s->x + slot / call->sharing * s->depth_pad;
}

/* Outputs [first, last) of one expert's slots, where an output has a row of the weight. */
static void outputs_by_rows(const rk_linear_call *call, const rk_linear_stretch *s, int64_t a, int64_t first,
                            int64_t last) {
    const int alone = s->begin[a + 1] - s->begin[a] == 1;
    for (int64_t r = first; r < last; r += 4) {
        const void *w[4]; /* past the last row, the last row again: its sums are not kept */
        for (int i = 0; i < 4; i++) w[i] = at_row(call, s->expert[a], r + i < last ? r + i : last - 1);
        const int64_t kept = last - r < 4 ? last - r : 4;
        for (int64_t t = s->begin[a]; t < s->begin[a + 1]; t += TILE_TOKENS) {
            const void *soon = t == s->begin[a] ? at_row(call, s->expert[a], r + 4) : NULL;
            const int64_t left = s->begin[a + 1] - t;
            const int tokens = (int)(left < TILE_TOKENS ? left : TILE_TOKENS);
            const float *x[TILE_TOKENS];
            float out[4 * TILE_TOKENS];
            for (int i = 0; i < tokens; i++) x[i] = input_of(call, s, s->order[t + i]);
            if (call->dtype == RK_F32) tile4_f32(tokens, alone, call->depth, (const float *const *)w, soon, x, out);
            else if (call->dtype == RK_BF16) tile4_bf16(tokens, alone, call->depth, (const uint16_t *const *)w, soon, x, out);
            else tile4_f16(tokens, alone, call->depth, (const uint16_t *const *)w, soon, x, out);
            for (int i = 0; i < tokens; i++)
                memcpy(s->o + s->order[t + i] * s->outputs_pad + r, out + 4 * i, (size_t)kept * sizeof(float));
        }
    }
}

/* Outputs [first, first + n) of one expert's slots, where an output has a column of the weight. */
static void outputs_by_columns(const rk_linear_call *call, const rk_linear_stretch *s, int64_t a, int64_t first,
                               int64_t n) {
    const int64_t begin = s->begin[a], end = s->begin[a + 1], chunk = end - begin > 1 ? ROW_CHUNK : call->depth;
    for (int64_t t = begin; t < end; t++)
        memset(s->o + s->order[t] * s->outputs_pad + first, 0, (size_t)rk_padded(n) * sizeof(float));
    for (int64_t row = 0; row < call->depth; row += chunk) {
        const int64_t rows = call->depth - row < chunk ? call->depth - row : chunk;
        const void *w = at_row(call, s->expert[a], row);
        for (int64_t t = begin; t < end; t += SLOT_GROUP) {
            const int64_t slots = end - t < SLOT_GROUP ? end - t : SLOT_GROUP;
            const float *x[SLOT_GROUP];
            float *sum[SLOT_GROUP];
            for (int64_t i = 0; i < slots; i++) {
                x[i] = input_of(call, s, s->order[t + i]) + row;
                sum[i] = s->o + s->order[t + i] * s->outputs_pad + first;
            }
            if (call->dtype == RK_F32)
                add_outer_f32((const float *)w + first, call->weight_row, s->rows, rows, slots, x, n, sum);
            else if (call->dtype == RK_BF16)
                add_outer_bf16((const uint16_t *)w + first, call->weight_row, s->rows, rows, slots, x, n, sum);
            else add_outer_f16((const uint16_t *)w + first, call->weight_row, s->rows, rows, slots, x, n, sum);
        }
    }
}

/* Sorts the stretch's slots by expert, keeping their order within one; what names no expert is left out. */
static void sort_slots(const rk_linear_call *call, rk_linear_stretch *s) {
    const int64_t *ids = call->ids + s->first;
    int64_t at = 0;
    memset(s->next, 0, (size_t)call->experts * sizeof *s->next);
    for (int64_t i = 0; i < s->slots; i++)
        if (ids[i] >= 0 && ids[i] < call->experts) s->next[ids[i]]++;
    s->active = 0;
    for (int64_t e = 0; e < call->experts; e++) {
        const int64_t count = s->next[e];
        s->next[e] = at;
        if (!count) continue;
        s->expert[s->active] = e;
        s->begin[s->active++] = at;
        at += count;
    }
    s->begin[s->active] = at;
    for (int64_t i = 0; i < s->slots; i++)
        if (ids[i] >= 0 && ids[i] < call->experts) s->order[s->next[ids[i]]++] = i;
}

static void run(const rk_linear_call *call, rk_linear_stretch *s) {
    const int64_t size = call->transposed ? COLUMN_BLOCK : ROW_BLOCK, parts = (call->outputs + size - 1) / size;
    sort_slots(call, s);
    const int threads =
        rk_threads(s->begin[s->active] * call->depth * call->outputs, MACS_PER_THREAD, call->threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s->slots / call->sharing; i++)
            widen_row(call->dtype, call->x, (s->first / call->sharing + i) * call->depth, call->depth,
                      s->x + i * s->depth_pad, s->depth_pad);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s->active * parts; task++) {
            const int64_t a = task / parts, first = task % parts * size;
            const int64_t last = first + size < call->outputs ? first + size : call->outputs;
            if (call->transposed) outputs_by_columns(call, s, a, first, last - first);
            else outputs_by_rows(call, s, a, first, last);
        }
#pragma omp for schedule(dynamic)
        for (int64_t a = 0; a < s->active; a++) {
            float *bias = s->bias + omp_get_thread_num() * s->outputs_pad;
            if (call->bias)
                widen_row(call->dtype, call->bias, s->expert[a] * call->bias_row, call->outputs, bias, s->outputs_pad);
            for (int64_t t = s->begin[a]; t < s->begin[a + 1]; t++) {
                float *o = s->o + s->order[t] * s->outputs_pad;
                for (int64_t i = 0; call->bias && i < call->outputs; i++) o[i] += bias[i];
                narrow(call->dtype, o, call->y, (s->first + s->order[t]) * call->outputs, call->outputs);
            }
        }
    }
    const size_t bytes = (size_t)call->outputs * (call->dtype == RK_F32 ? 4 : 2);
    for (int64_t i = 0; i < s->slots; i++) {
        const int64_t id = call->ids[s->first + i];
        if (id < 0 || id >= call->experts) memset((char *)call->y + (s->first + i) * bytes, 0, bytes);
    }
}

ENTRY(rk_expert_linear)(const rk_linear_call *call) {
    rk_linear_stretch s = {.depth_pad = rk_padded(call->depth), .outputs_pad = rk_padded(call->outputs)};
    const int64_t sharing = call->sharing, per_row = (s.depth_pad + sharing * s.outputs_pad) * 4;
    int64_t most = SCRATCH_BYTES / (per_row > 0 ? per_row : 1);
    if (most < 1) most = 1;
    if (most > call->slots / sharing) most = call->slots / sharing;
    most *= sharing;
    if (!most) return RK_OK;
    const int64_t floats = most / sharing * s.depth_pad + (most + call->threads) * s.outputs_pad;
    const int64_t integers = 3 * call->experts + 1 + most;
    const size_t bytes = (size_t)floats * 4 + (size_t)integers * 8 + (size_t)call->depth * 4;
    float *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!block) return RK_NO_MEMORY;
    s.x = block;
    s.o = s.x + most / sharing * s.depth_pad;
    s.bias = s.o + most * s.outputs_pad;
    s.next = (int64_t *)(block + floats);
    s.expert = s.next + call->experts;
    s.begin = s.expert + call->experts;
    s.order = s.begin + call->experts + 1;
    s.rows = (int32_t *)(s.order + most);
    for (int64_t i = 0; i < call->depth; i++) s.rows[i] = (int32_t)i;
    for (s.first = 0; s.first < call->slots; s.first += most) {
        s.slots = call->slots - s.first < most ? call->slots - s.first : most;
        run(call, &s);
    }
    free(block);
    return RK_OK;
}
