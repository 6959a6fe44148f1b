/* The expert layer's bfloat16 products by tiles (tiles.h). Included by moe_body.h where RK_TILED is defined.

   Weights are read as they lie, sixteen rows by 32 columns a tile on the left; the slots of an expert are packed in groups of
   up to sixteen, pairs of values by slots, as the right side wants them. Neurons go into the second product as two bfloat16
   parts, so that it keeps their float32 value to sixteen bits; every sum's order depends on nothing but its own row and slot,
   so a token's bits do not depend on the tokens beside it. */
#include "tiles.h"

#define SIDE 16   /* rows of weights and slots of a tile */
#define DEPTH 32  /* values that a tile's row holds of the shared dimension: what is packed is padded to it */
#define AHEAD 256 /* values ahead that weights are asked for, the first time they are read */

/* Tiles by number, as the instructions want them. */
#define SUM0 0
#define SUM1 1
#define SUM2 2
#define SUM3 3
#define LEFT0 4
#define LEFT1 5
#define RIGHT0 6
#define RIGHT1 7

typedef float rk_square[SIDE][SIDE]; /* rows of weights by slots */

/* Sums SUM0 and SUM1 over RIGHT0 for `slots` slots, SUM2 and SUM3 for `more`, over RIGHT1 where they have one; 0: not there. */
static void shape_tiles(rk_tile_config *config, int64_t slots, int64_t more, int right) {
    memset(config, 0, sizeof *config);
    config->palette = 1;
    const int64_t bytes[RK_TILES] = {4 * slots, 4 * slots, 4 * more, 4 * more, 2 * DEPTH, 2 * DEPTH, 4 * slots, 4 * right};
    for (int i = 0; i < RK_TILES; i++) {
        config->bytes[i] = (uint16_t)bytes[i];
        config->rows[i] = bytes[i] ? SIDE : 0;
    }
}

/* Where SIDE rows of DEPTH weights can be read, of which `rows` by `columns` are there: in place, or in a copy with zeros. */
static const uint16_t *left_side(const uint16_t *w, int64_t *stride, int64_t rows, int64_t columns, uint16_t *copy) {
    if (rows >= SIDE && columns >= DEPTH) return w;
    memset(copy, 0, SIDE * DEPTH * sizeof *copy);
    for (int64_t r = 0; r < rows && r < SIDE; r++)
        memcpy(copy + r * DEPTH, w + r * *stride, (size_t)(columns < DEPTH ? columns : DEPTH) * sizeof *copy);
    *stride = DEPTH;
    return copy;
}

/* Asks for SIDE rows of weights at column k + AHEAD; past the end of the rows, for those that follow. */
static inline void ask_ahead(const uint16_t *w, int64_t stride, int64_t k, int64_t columns) {
    const uint16_t *at = w + k + AHEAD;
    if (k + AHEAD >= columns) at += SIDE * stride - columns;
    for (int r = 0; r < SIDE; r++) __builtin_prefetch(at + r * stride, 0, 3);
}

/* Sorted slots [first, first + n) of x, as pairs by slots. */
static void pack_slots(const rk_moe_call *call, const rk_moe_stretch *s, int64_t first, int64_t n) {
    uint32_t *out = (uint32_t *)(s->packed_x + first * s->hidden_deep);
    for (int64_t i = 0; i < n; i++) {
        const uint16_t *x = (const uint16_t *)call->x + (s->first + s->token[first + i]) * call->hidden;
        for (int64_t p = 0; p < call->hidden / 2; p++) out[p * n + i] = (uint32_t)x[2 * p] | (uint32_t)x[2 * p + 1] << 16;
        for (int64_t p = call->hidden / 2; p < s->hidden_deep / 2; p++) out[p * n + i] = 0;
        if (call->hidden % 2) out[call->hidden / 2 * n + i] = x[call->hidden - 1];
    }
}

/* A float as the sum of two bfloat16: its upper half, which never rounds up to infinity, and what that leaves. */
static inline void split(float value, uint16_t *high, uint16_t *low) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int finite = (bits & 0x7F800000u) != 0x7F800000u;
    if (value != value) bits |= 0x400000u; /* stays a NaN when its lower half is gone */
    const uint32_t upper = bits & 0xFFFF0000u;
    float kept;
    memcpy(&kept, &upper, sizeof kept);
    *high = (uint16_t)(upper >> 16);
    *low = finite ? bfloat16_from_float(value - kept) : 0;
}

/* Neurons [first, first + SIDE) of the sorted slots [begin, begin + n), packed, and kept as floats for the statistics. */
static void pack_neurons(const rk_moe_call *call, const rk_moe_stretch *s, int64_t first, int64_t begin, int64_t n,
                         rk_square neurons) {
    const int64_t place = begin * s->width_deep + first * n;
    uint32_t *high = (uint32_t *)(s->packed_h + place), *low = (uint32_t *)(s->packed_h + s->slots * s->width_deep + place);
    for (int64_t r = call->width - first; r < SIDE; r++) memset(neurons[r], 0, sizeof neurons[r]);
    for (int64_t p = 0; p < SIDE / 2; p++)
        for (int64_t i = 0; i < n; i++) {
            uint16_t part[4];
            split(neurons[2 * p][i], part, part + 2);
            split(neurons[2 * p + 1][i], part + 1, part + 3);
            high[p * n + i] = (uint32_t)part[0] | (uint32_t)part[1] << 16;
            low[p * n + i] = (uint32_t)part[2] | (uint32_t)part[3] << 16;
        }
    const int64_t padding = first + SIDE == s->width_deep - SIDE && first + SIDE >= call->width ? SIDE / 2 * n : 0;
    memset(high + SIDE / 2 * n, 0, (size_t)padding * sizeof *high);
    memset(low + SIDE / 2 * n, 0, (size_t)padding * sizeof *low);
    if (!call->norms) return;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < SIDE; r++) s->h[(begin + i) * s->width_pad + first + r] = neurons[r][i];
}

/* Rows [first, first + SIDE) of gate and of up against all slots [begin, end) of one expert. */
static void tiled_gate_up(const rk_moe_call *call, const rk_moe_stretch *s, int64_t expert, int64_t first, int64_t begin,
                          int64_t end) {
    const int64_t hidden = call->hidden, row = call->gate_up_row, rows = call->width - first;
    const uint16_t *gate = (const uint16_t *)call->gate_up + expert * call->gate_up_expert + first * row;
    const uint16_t *up = gate + call->width * row;
    _Alignas(64) uint16_t copy[2][SIDE * DEPTH];
    _Alignas(64) rk_square g[2] = {0}, u[2] = {0}, h;
    rk_tile_config config;
    for (int64_t at = begin, shaped = 0; at < end; at += 2 * SIDE) {
        const int64_t n = end - at < SIDE ? end - at : SIDE, left = end - at - n, more = left < SIDE ? left : SIDE;
        const uint16_t *x = s->packed_x + at * s->hidden_deep, *x_more = x + n * s->hidden_deep;
        if (shaped != n + more) {
            shape_tiles(&config, n, more, (int)more);
            rk_tile_configure(&config);
            shaped = n + more;
        }
        rk_tile_zero(SUM0);
        rk_tile_zero(SUM1);
        if (more) {
            rk_tile_zero(SUM2);
            rk_tile_zero(SUM3);
        }
        for (int64_t k = 0; k < hidden; k += DEPTH) {
            int64_t stride[2] = {row, row};
            const uint16_t *w[2] = {left_side(gate + k, &stride[0], rows, hidden - k, copy[0]),
                                    left_side(up + k, &stride[1], rows, hidden - k, copy[1])};
            if (at == begin) {
                ask_ahead(gate, row, k, hidden);
                ask_ahead(up, row, k, hidden);
            }
            rk_tile_load(LEFT0, w[0], stride[0] * 2);
            rk_tile_load(LEFT1, w[1], stride[1] * 2);
            rk_tile_load(RIGHT0, x + k * n, n * 4);
            rk_tile_dot(SUM0, LEFT0, RIGHT0);
            rk_tile_dot(SUM1, LEFT1, RIGHT0);
            if (more) {
                rk_tile_load(RIGHT1, x_more + k * more, more * 4);
                rk_tile_dot(SUM2, LEFT0, RIGHT1);
                rk_tile_dot(SUM3, LEFT1, RIGHT1);
            }
        }
        rk_tile_store(SUM0, g[0], sizeof g[0][0]);
        rk_tile_store(SUM1, u[0], sizeof u[0][0]);
        if (more) {
            rk_tile_store(SUM2, g[1], sizeof g[1][0]);
            rk_tile_store(SUM3, u[1], sizeof u[1][0]);
        }
        for (int i = 0; i < (more ? 2 : 1); i++) { /* whole squares, so that no slot is ever in the rest of a loop */
            rk_gate(call->act, g[i][0], u[i][0], h[0], SIDE * SIDE);
            pack_neurons(call, s, first, at + i * SIDE, i ? more : n, h);
        }
    }
    rk_tile_release();
}

/* Rows [first, last) of down, at most 2 SIDE, against all slots [begin, end) of one expert. */
static void tiled_down(const rk_moe_call *call, const rk_moe_stretch *s, int64_t expert, int64_t first, int64_t last,
                       int64_t begin, int64_t end) {
    const int64_t width = call->width, row = call->down_row, rows = last - first;
    const uint16_t *down = (const uint16_t *)call->down + expert * call->down_expert + first * row;
    _Alignas(64) uint16_t copy[2][SIDE * DEPTH];
    _Alignas(64) rk_square sum[4];
    rk_tile_config config;
    for (int64_t at = begin, shaped = 0; at < end; at += SIDE) {
        const int64_t n = end - at < SIDE ? end - at : SIDE;
        const uint16_t *high = s->packed_h + at * s->width_deep, *low = high + s->slots * s->width_deep;
        if (shaped != n) {
            shape_tiles(&config, n, n, (int)n);
            rk_tile_configure(&config);
            shaped = n;
        }
        rk_tile_zero(SUM0);
        rk_tile_zero(SUM1);
        rk_tile_zero(SUM2);
        rk_tile_zero(SUM3);
        for (int64_t k = 0; k < width; k += DEPTH) {
            int64_t stride[2] = {row, row};
            const uint16_t *w = left_side(down + k, &stride[0], rows, width - k, copy[0]);
            if (at == begin) ask_ahead(down, row, k, width);
            rk_tile_load(LEFT0, w, stride[0] * 2);
            rk_tile_load(RIGHT0, high + k * n, n * 4);
            rk_tile_load(RIGHT1, low + k * n, n * 4);
            rk_tile_dot(SUM0, LEFT0, RIGHT0);
            rk_tile_dot(SUM2, LEFT0, RIGHT1);
            if (rows > SIDE) {
                w = left_side(down + SIDE * row + k, &stride[1], rows - SIDE, width - k, copy[1]);
                if (at == begin) ask_ahead(down + SIDE * row, row, k, width);
                rk_tile_load(LEFT1, w, stride[1] * 2);
                rk_tile_dot(SUM1, LEFT1, RIGHT0);
                rk_tile_dot(SUM3, LEFT1, RIGHT1);
            }
        }
        rk_tile_store(SUM0, sum[0], sizeof sum[0][0]);
        rk_tile_store(SUM1, sum[1], sizeof sum[1][0]);
        rk_tile_store(SUM2, sum[2], sizeof sum[2][0]);
        rk_tile_store(SUM3, sum[3], sizeof sum[3][0]);
        for (int64_t i = 0; i < n; i++) {
            float *o = s->o + (at + i) * call->hidden + first;
            for (int64_t r = 0; r < rows; r++) o[r] = sum[r / SIDE][r % SIDE][i] + sum[r / SIDE + 2][r % SIDE][i];
        }
    }
    rk_tile_release();
}

/* h (packed, and as floats where statistics want them) and o of the stretch. The loops divide themselves among a team. */
static void tiled_products(const rk_moe_call *call, const rk_moe_stretch *s) {
#pragma omp for schedule(dynamic)
    for (int64_t a = 0; a < s->active; a++)
        for (int64_t at = s->begin[a]; at < s->begin[a + 1]; at += SIDE)
            pack_slots(call, s, at, s->begin[a + 1] - at < SIDE ? s->begin[a + 1] - at : SIDE);
    const int64_t neurons = (call->width + SIDE - 1) / SIDE, outputs = (call->hidden + 2 * SIDE - 1) / (2 * SIDE);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s->active * neurons; task++) {
        const int64_t a = task / neurons;
        tiled_gate_up(call, s, s->expert[a], task % neurons * SIDE, s->begin[a], s->begin[a + 1]);
    }
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s->active * outputs; task++) {
        const int64_t a = task / outputs, first = task % outputs * 2 * SIDE, end = first + 2 * SIDE;
        tiled_down(call, s, s->expert[a], first, end < call->hidden ? end : call->hidden, s->begin[a], s->begin[a + 1]);
    }
}

/* Whether tiles here compute what plain C does, on whole numbers that nothing rounds: asked once before they are used. */
static int tiles_agree(void) {
    _Alignas(64) uint16_t left[SIDE][DEPTH], right[SIDE][DEPTH]; /* right: pairs by slots */
    _Alignas(64) rk_square sum;
    rk_tile_config config;
    for (int r = 0; r < SIDE; r++)
        for (int k = 0; k < DEPTH; k++) {
            left[r][k] = bfloat16_from_float((float)((r * 7 + k * 3) % 17 - 8));
            right[k / 2][2 * r + k % 2] = bfloat16_from_float((float)((r * 5 + k * 11) % 13 - 6));
        }
    shape_tiles(&config, SIDE, 0, 0);
    rk_tile_configure(&config);
    rk_tile_zero(SUM0);
    rk_tile_load(LEFT0, left, sizeof left[0]);
    rk_tile_load(RIGHT0, right, sizeof right[0]);
    rk_tile_dot(SUM0, LEFT0, RIGHT0);
    rk_tile_dot(SUM0, LEFT0, RIGHT0);
    rk_tile_store(SUM0, sum, sizeof sum[0]);
    rk_tile_release();
    for (int r = 0; r < SIDE; r++)
        for (int i = 0; i < SIDE; i++) {
            int exact = 0;
            for (int k = 0; k < DEPTH; k++) exact += ((r * 7 + k * 3) % 17 - 8) * ((i * 5 + k * 11) % 13 - 6);
            if (sum[r][i] != (float)(2 * exact)) return 0;
        }
    return 1;
}
