/* Products of a few rows with a few tokens, for one weight type. Included with WT, LOAD_W, NAME and PREFETCH_BYTES defined;
   who includes it undefines them. A sum's lanes run along the shared dimension and are added in one fixed order, so a
   token's result does not depend on which other tokens share its tile, nor on threads. */

/* out[t * rows + r] = sum over k of w[r][k] * x[t][k]; x is readable, and zero, up to the next vector.
   A lone token reads its weights once, from memory: it asks for them ahead, past a row's end for the row that the
   next call will read, `next` elements on. */
static inline __attribute__((always_inline)) void NAME(tile)(const int rows, const int tokens, int64_t length,
                                                             const WT *const *w, int64_t next, const float *const *x,
                                                             float *out) {
    vec sum[24], lane[TILE_TOKENS];
    const int64_t whole = length - length % VL, ahead = PREFETCH_BYTES / (int64_t)sizeof(WT);
#pragma GCC unroll 24
    for (int i = 0; i < rows * tokens; i++) sum[i] = vec_zero();
    for (int64_t k = 0; k < whole; k += VL) {
#pragma GCC unroll 6
        for (int t = 0; t < tokens; t++) lane[t] = vec_load_f32(x[t] + k);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            if (tokens == 1) __builtin_prefetch(w[r] + k + ahead + (k + ahead < length ? 0 : next - length), 0, 3);
            vec weight = LOAD_W(w[r] + k);
#pragma GCC unroll 6
            for (int t = 0; t < tokens; t++) sum[r * tokens + t] = vec_fma(weight, lane[t], sum[r * tokens + t]);
        }
    }
    if (whole < length) {
#pragma GCC unroll 6
        for (int t = 0; t < tokens; t++) lane[t] = vec_load_f32(x[t] + whole);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            WT tail[VL] = {0};
            memcpy(tail, w[r] + whole, (size_t)(length - whole) * sizeof(WT));
            vec weight = LOAD_W(tail);
#pragma GCC unroll 6
            for (int t = 0; t < tokens; t++) sum[r * tokens + t] = vec_fma(weight, lane[t], sum[r * tokens + t]);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r += 4) {
            vec_sum4(sum[r * tokens + t], sum[(r + 1) * tokens + t], sum[(r + 2) * tokens + t],
                     sum[(r + 3) * tokens + t], out + t * rows + r);
        }
    }
}

/* Four rows against up to TILE_TOKENS tokens. */
static void NAME(tile4)(int tokens, int64_t length, const WT *const *w, const float *const *x, float *out) {
    switch (tokens) {
    case 1: NAME(tile)(4, 1, length, w, 0, x, out); break;
    case 2: NAME(tile)(4, 2, length, w, 0, x, out); break;
#if TILE_TOKENS > 3
    case 3: NAME(tile)(4, 3, length, w, 0, x, out); break;
    case 4: NAME(tile)(4, 4, length, w, 0, x, out); break;
    case 5: NAME(tile)(4, 5, length, w, 0, x, out); break;
#endif
    default: NAME(tile)(4, TILE_TOKENS, length, w, 0, x, out); break;
    }
}
