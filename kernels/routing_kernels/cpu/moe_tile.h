/* The expert layer's products for one weight type. Included once per type with WT, LOAD_W and NAME defined. */

#include "dots_tile.h"

/* out[r - first] = rows [first, last) of w times one token, in one walk through them. */
static void NAME(lone_rows)(const WT *w, int64_t row, int64_t first, int64_t last, int64_t length, const float *x,
                            float *out) {
    for (int64_t r = first; r < last; r += 4) {
        const WT *at[4]; /* past the last row, the last row again: its sums are not kept */
        float found[4];
        for (int i = 0; i < 4; i++) at[i] = w + (r + i < last ? r + i : last - 1) * row;
        NAME(tile4)(1, 1, length, at, at[3] + row, &x, found);
        memcpy(out + r - first, found, (size_t)(last - r < 4 ? last - r : 4) * sizeof(float));
    }
}

/* Rows [first, last) of gate and of up against the sorted slots [begin, end) of one expert. */
static void NAME(gate_up)(const rk_moe_call *call, const rk_moe_stretch *s, int64_t expert, int64_t first, int64_t last,
                          int64_t begin, int64_t end) {
    const int64_t hidden = call->hidden, row = call->gate_up_row;
    const WT *gate = (const WT *)call->gate_up + expert * call->gate_up_expert, *up = gate + call->width * row;
    const float *x = s->x ? s->x : (const float *)call->x + s->first * hidden;
    const int64_t x_row = s->x ? s->hidden_pad : hidden;
    _Alignas(64) float g[SLOT_GROUP][ROW_BLOCK], u[SLOT_GROUP][ROW_BLOCK];
    for (int64_t group = begin; group < end; group += SLOT_GROUP) {
        const int64_t slots = end - group < SLOT_GROUP ? end - group : SLOT_GROUP;
        const int walked = LONE_ROWS == 1 && slots == 1;
        if (walked) {
            NAME(lone_rows)(gate, row, first, last, hidden, x + s->token[group] * x_row, g[0]);
            NAME(lone_rows)(up, row, first, last, hidden, x + s->token[group] * x_row, u[0]);
        }
        for (int64_t r = first; r < last && !walked; r += 4) {
            const WT *w[8]; /* past the last row, the last row again: its sums are not kept */
            for (int i = 0; i < 4; i++) {
                int64_t at = r + i < last ? r + i : last - 1;
                w[i] = gate + at * row;
                w[i + 4] = up + at * row;
            }
            for (int64_t t = 0; t < slots; t += TILE_TOKENS) {
                const int tokens = (int)(slots - t < TILE_TOKENS ? slots - t : TILE_TOKENS);
                const float *tile_x[TILE_TOKENS];
                float out[8 * TILE_TOKENS];
                for (int i = 0; i < tokens; i++) tile_x[i] = x + s->token[group + t + i] * x_row;
                if (LONE_ROWS == 8 && tokens == 1) { /* gate and up together: eight streams hide more of the memory's latency */
                    NAME(tile)(8, 1, hidden, w, 4 * row, NULL, tile_x, out);
                    memcpy(&g[t][r - first], out, 4 * sizeof(float));
                    memcpy(&u[t][r - first], out + 4, 4 * sizeof(float));
                    continue;
                }
                NAME(tile4)(tokens, 0, hidden, w, t ? NULL : w[4], tile_x, out);
                for (int i = 0; i < tokens; i++) memcpy(&g[t + i][r - first], out + 4 * i, 4 * sizeof(float));
                NAME(tile4)(tokens, 0, hidden, w + 4, t ? NULL : w[3] + row, tile_x, out);
                for (int i = 0; i < tokens; i++) memcpy(&u[t + i][r - first], out + 4 * i, 4 * sizeof(float));
            }
        }
        for (int64_t t = 0; t < slots; t++) {
            float *h = s->h + (group + t) * s->width_pad;
            rk_gate(call->act, g[t], u[t], h + first, last - first);
            if (last == call->width) memset(h + last, 0, (size_t)(s->width_pad - last) * sizeof(float));
        }
    }
}

/* Rows [first, last) of down against the sorted slots [begin, end) of one expert. */
static void NAME(down)(const rk_moe_call *call, const rk_moe_stretch *s, int64_t expert, int64_t first, int64_t last,
                       int64_t begin, int64_t end) {
    const WT *down = (const WT *)call->down + expert * call->down_expert;
    for (int64_t group = begin; group < end; group += SLOT_GROUP) {
        const int64_t slots = end - group < SLOT_GROUP ? end - group : SLOT_GROUP;
        const int walked = LONE_ROWS == 1 && slots == 1;
        if (walked)
            NAME(lone_rows)(down, call->down_row, first, last, call->width, s->h + group * s->width_pad,
                            s->o + group * call->hidden + first);
        for (int64_t r = first; r < last && !walked; r += 4) {
            const WT *w[8];
            for (int i = 0; i < 8; i++) w[i] = down + (r + i < last ? r + i : last - 1) * call->down_row;
            for (int64_t t = 0; t < slots; t += TILE_TOKENS) {
                const int tokens = (int)(slots - t < TILE_TOKENS ? slots - t : TILE_TOKENS);
                const int eight = LONE_ROWS == 8 && tokens == 1; /* a lone slot takes eight rows at a time */
                if (eight && (r - first) % 8) continue;
                const int rows = eight ? 8 : 4;
                const float *tile_h[TILE_TOKENS];
                float out[8 * TILE_TOKENS];
                for (int i = 0; i < tokens; i++) tile_h[i] = s->h + (group + t + i) * s->width_pad;
                if (eight) NAME(tile)(8, 1, call->width, w, 8 * call->down_row, NULL, tile_h, out);
                else NAME(tile4)(tokens, 0, call->width, w, t ? NULL : w[4], tile_h, out);
                const int64_t kept = last - r < rows ? last - r : rows;
                for (int i = 0; i < tokens; i++)
                    memcpy(s->o + (group + t + i) * call->hidden + r, out + rows * i, (size_t)kept * sizeof(float));
            }
        }
    }
}

/* One token of x as floats, zero padded. */
static void NAME(widen)(const rk_moe_call *call, const rk_moe_stretch *s, int64_t token) {
    const WT *in = (const WT *)call->x + (s->first + token) * call->hidden;
    float *out = s->x + token * s->hidden_pad;
    int64_t whole = call->hidden - call->hidden % VL;
    for (int64_t k = 0; k < whole; k += VL) vec_store_f32(out + k, LOAD_W(in + k));
    if (whole < call->hidden) {
        WT tail[VL] = {0};
        memcpy(tail, in + whole, (size_t)(call->hidden - whole) * sizeof(WT));
        vec_store_f32(out + whole, LOAD_W(tail));
        whole += VL;
    }
    memset(out + whole, 0, (size_t)(s->hidden_pad - whole) * sizeof(float));
}

#undef WT
#undef LOAD_W
#undef NAME
