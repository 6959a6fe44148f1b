/* What the entry point and the instruction sets' own builds of the expert layer share. */
#ifndef RK_MOE_H
#define RK_MOE_H
#include "common.h"

typedef struct {
    const void *x;           /* [tokens, hidden], contiguous */
    const int64_t *ids;      /* [tokens, top_k], contiguous */
    const void *weights;     /* [tokens, top_k], contiguous */
    const void *gate_up;     /* [experts, 2 * width, hidden], rows contiguous */
    const void *down;        /* [experts, hidden, width], rows contiguous */
    void *y;                 /* [tokens, hidden] */
    int64_t *counts;         /* [experts] */
    int64_t *dropped;        /* one number */
    float *norms;            /* [3, tokens, top_k]: slot norm, hidden L1, hidden L2; NULL: no statistics */
    int32_t *tallies;        /* [2, tokens, top_k]: hidden zero, hidden below */
    int64_t tokens, top_k, experts, hidden, width;
    int64_t gate_up_expert, gate_up_row, down_expert, down_row; /* strides */
    int64_t dtype, weights_dtype, act, isa, threads;
    double threshold;
} rk_moe_call;

/* A stretch of tokens small enough for its scratch, its slots sorted by expert. */
typedef struct {
    int64_t first, tokens;      /* the stretch */
    int64_t slots;              /* executed slots in it */
    int64_t active;             /* experts that have any */
    const int64_t *expert;      /* [active] */
    const int64_t *begin;       /* [active + 1] into the sorted slots */
    const int64_t *token;       /* [slots] token of a sorted slot, counted from the stretch's first */
    const int64_t *place;       /* [tokens, top_k] sorted slot of a slot, or -1 when it is dropped */
    int64_t hidden_pad, width_pad;
    float *x;                   /* [tokens, hidden_pad] x as float, zero padded; NULL: read x itself */
    float *h;                   /* [slots, width_pad] act(gate) * up, zero padded */
    float *o;                   /* [slots, hidden] expert outputs before their weight */
    float *weight;              /* [tokens, top_k] the combine weights as float */
    /* For tiles alone, else NULL: sorted slots in groups, in bfloat16, padded to a tile's depth (moe_tiles.h). */
    int64_t hidden_deep, width_deep;
    uint16_t *packed_x;         /* [slots, hidden_deep] */
    uint16_t *packed_h;         /* [2, slots, width_deep] upper and lower part of h */
} rk_moe_stretch;

void rk_moe_run_portable(const rk_moe_call *call, const rk_moe_stretch *stretch);
void rk_moe_run_avx2(const rk_moe_call *call, const rk_moe_stretch *stretch);
void rk_moe_run_avx512(const rk_moe_call *call, const rk_moe_stretch *stretch);
void rk_moe_run_amx(const rk_moe_call *call, const rk_moe_stretch *stretch);
void rk_moe_run_amx_emulated(const rk_moe_call *call, const rk_moe_stretch *stretch);
int rk_amx_agrees(void);
int rk_amx_emulated_agrees(void);
#endif
