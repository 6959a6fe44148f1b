/* The expert layer for one instruction set. Included after that set's vector header, with RUN defined.

   Three steps: gate, up and activation by (expert, block of rows); down by (expert, block of rows); then each
   token's slots are weighted and added in slot order. Every number is written by one thread in a fixed order. */
#include "moe.h"
#include "activation.h"
#include "narrow.h"
#include "widen.h"

#define ROW_BLOCK 32       /* rows of one task */
#define SLOT_GROUP 48      /* slots whose activations a task holds: a multiple of every TILE_TOKENS */
#define PREFETCH_BYTES 512 /* how far ahead a lone token asks for weights */
#define COLUMNS 64         /* of y combined at a time */

#define WT float
#define LOAD_W vec_load_f32
#define NAME(x) x##_f32
#include "moe_tile.h"

#define WT uint16_t
#define LOAD_W vec_load_bf16
#define NAME(x) x##_bf16
#include "moe_tile.h"

#define WT uint16_t
#define LOAD_W vec_load_f16
#define NAME(x) x##_f16
#include "moe_tile.h"

#define BY_DTYPE(function, ...)                                     \
    (call->dtype == RK_F32    ? function##_f32(__VA_ARGS__)         \
     : call->dtype == RK_BF16 ? function##_bf16(__VA_ARGS__)        \
                              : function##_f16(__VA_ARGS__))

static void combine(const rk_moe_call *call, const rk_moe_stretch *s, int64_t token) {
    const int64_t hidden = call->hidden, top_k = call->top_k;
    const int64_t *place = s->place + token * top_k;
    const float *weight = s->weight + token * top_k;
    const int64_t out = (s->first + token) * hidden;
    for (int64_t column = 0; column < hidden; column += COLUMNS) {
        const int64_t n = hidden - column < COLUMNS ? hidden - column : COLUMNS;
        _Alignas(64) float sum[COLUMNS] = {0};
        for (int64_t j = 0; j < top_k; j++) {
            if (place[j] < 0) continue;
            const float *o = s->o + place[j] * hidden + column, w = weight[j];
            for (int64_t i = 0; i < n; i++) sum[i] += w * o[i];
        }
        narrow(call->dtype, sum, call->y, out + column, n);
    }
}

/* Norms are summed in double over eight interleaved parts, so that they are exact to float's last place. */
#define PARTS 8
#define LANES (VL < 2 * PARTS ? VL / 2 : PARTS) /* doubles of a vector register */
typedef float rk_floats __attribute__((vector_size(4 * LANES)));
typedef int32_t rk_integers __attribute__((vector_size(4 * LANES)));
typedef double rk_doubles __attribute__((vector_size(8 * LANES)));

#define AT(v, i) ((v)[(i) / LANES][(i) % LANES])
#define TOTAL(v)                                            \
    (((AT(v, 0) + AT(v, 4)) + (AT(v, 1) + AT(v, 5))) +      \
     ((AT(v, 2) + AT(v, 6)) + (AT(v, 3) + AT(v, 7))))

static void slot_statistics(const rk_moe_call *call, const rk_moe_stretch *s, int64_t token) {
    const float threshold = (float)call->threshold;
    const int64_t plane = call->tokens * call->top_k, whole = call->hidden - call->hidden % PARTS;
    const int32_t padding = (int32_t)(s->width_pad - call->width); /* zeros that are no neurons */
    for (int64_t j = 0; j < call->top_k; j++) {
        const int64_t slot = (s->first + token) * call->top_k + j, place = s->place[token * call->top_k + j];
        rk_doubles absolute[PARTS / LANES] = {0}, square[PARTS / LANES] = {0}, output[PARTS / LANES] = {0};
        rk_integers zero[PARTS / LANES] = {0}, below[PARTS / LANES] = {0};
        if (place >= 0) {
            const float *h = s->h + place * s->width_pad, *o = s->o + place * call->hidden;
            rk_floats value;
            for (int64_t i = 0; i < s->width_pad; i += PARTS)
                for (int p = 0; p < PARTS / LANES; p++) {
                    memcpy(&value, h + i + p * LANES, sizeof value);
                    const rk_floats magnitude = (rk_floats)((rk_integers)value & 0x7FFFFFFF);
                    const rk_doubles exact = __builtin_convertvector(magnitude, rk_doubles);
                    absolute[p] += exact;
                    square[p] += exact * exact;
                    zero[p] -= magnitude == 0.0f; /* a comparison that holds is -1 */
                    below[p] -= magnitude < threshold;
                }
            zero[0][0] -= padding;
            below[0][0] -= threshold > 0.0f ? padding : 0;
            for (int64_t i = 0; i < whole; i += PARTS)
                for (int p = 0; p < PARTS / LANES; p++) {
                    memcpy(&value, o + i + p * LANES, sizeof value);
                    const rk_doubles exact = __builtin_convertvector(value, rk_doubles);
                    output[p] += exact * exact;
                }
            for (int64_t i = whole; i < call->hidden; i++) AT(output, i - whole) += (double)o[i] * o[i];
        }
        call->norms[slot] = (float)sqrt(TOTAL(output));
        call->norms[plane + slot] = (float)TOTAL(absolute);
        call->norms[2 * plane + slot] = (float)sqrt(TOTAL(square));
        call->tallies[slot] = TOTAL(zero);
        call->tallies[plane + slot] = TOTAL(below);
    }
}

#ifdef RK_TILED
#include "moe_tiles.h"
#endif

/* h and o of the stretch by vectors. The loops divide themselves among a team. */
static void products(const rk_moe_call *call, const rk_moe_stretch *s) {
    if (s->x) {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < s->tokens; token++) BY_DTYPE(widen, call, s, token);
    }
    const int64_t width_blocks = (call->width + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s->active * width_blocks; task++) {
        const int64_t a = task / width_blocks, first = task % width_blocks * ROW_BLOCK;
        const int64_t last = first + ROW_BLOCK < call->width ? first + ROW_BLOCK : call->width;
        BY_DTYPE(gate_up, call, s, s->expert[a], first, last, s->begin[a], s->begin[a + 1]);
    }
    const int64_t hidden_blocks = (call->hidden + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s->active * hidden_blocks; task++) {
        const int64_t a = task / hidden_blocks, first = task % hidden_blocks * ROW_BLOCK;
        const int64_t last = first + ROW_BLOCK < call->hidden ? first + ROW_BLOCK : call->hidden;
        BY_DTYPE(down, call, s, s->expert[a], first, last, s->begin[a], s->begin[a + 1]);
    }
}

/* Called by every thread of a team, or by one thread alone. */
void RUN(const rk_moe_call *call, const rk_moe_stretch *s) {
#pragma omp single
    widen_row(call->weights_dtype, call->weights, s->first * call->top_k, s->tokens * call->top_k, s->weight,
              s->tokens * call->top_k);
#ifdef RK_TILED
    if (s->packed_x) tiled_products(call, s);
    else products(call, s);
#else
    products(call, s);
#endif
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s->tokens; token++) {
        combine(call, s, token);
        if (call->norms) slot_statistics(call, s, token);
    }
}
