/* Products of a few rows with a few tokens, for one weight type. Included with WT, LOAD_W, NAME and PREFETCH_BYTES defined;
   who includes it undefines them. A sum's lanes run along the shared dimension, a stretch of DOT_STRETCH after the other, and
   are added in one fixed order, so a token's result does not depend on which other tokens share its tile, nor on threads. */

/* sum[r * tokens + t] += w[r][k] * x[t][k], lane by lane. Rows that a lone token reads together come from memory: they are
   asked for ahead, past a row's end for the row that the next call will read, `next` elements on. */
static inline __attribute__((always_inline)) void NAME(step)(const int rows, const int tokens, int64_t k, int64_t length,
                                                             const WT *const *w, int64_t next, const WT *soon,
                                                             const float *const *x, vec *sum) {
    const int64_t ahead = PREFETCH_BYTES / (int64_t)sizeof(WT);
    vec lane[TILE_TOKENS];
    if (ASK_SOON && soon) {
#pragma GCC unroll 2
        for (int i = 0; i < 4 * VL * (int)sizeof(WT); i += 64) __builtin_prefetch((const char *)(soon + 4 * k) + i, 0, 2);
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) lane[t] = vec_load_f32(x[t] + k);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        if (LONE_ROWS > 1 && tokens == 1)
            __builtin_prefetch(w[r] + k + ahead + (k + ahead < length ? 0 : next - length), 0, 3);
        vec weight = LOAD_W(w[r] + k);
#pragma GCC unroll 6
        for (int t = 0; t < tokens; t++) sum[r * tokens + t] = vec_fma(weight, lane[t], sum[r * tokens + t]);
    }
}

/* total[r * tokens + t] = the lanes' sums over k of w[r][k] * x[t][k]; x is readable, and zero, up to the next vector. */
static inline __attribute__((always_inline)) void NAME(lanes)(const int rows, const int tokens, int64_t length,
                                                              const WT *const *w, int64_t next, const WT *soon,
                                                              const float *const *x, vec *total) {
    const int64_t whole = length - length % VL, stretch = DOT_STRETCH;
    int64_t from = 0;
    vec sum[24];
#pragma GCC unroll 24
    for (int i = 0; i < rows * tokens; i++) total[i] = vec_zero();
    if (rows * tokens == 1) /* a chain would wait for itself: four stretches, 128 bytes apart, at a time */
        for (; from + 4 * stretch <= whole; from += 4 * stretch) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] = vec_zero();
#pragma GCC unroll 2
            for (int64_t k = from; k < from + stretch; k += VL)
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) NAME(step)(1, 1, k + i * stretch, length, w, next, soon, x, sum + i);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) total[0] += sum[i];
        }
    for (; from < whole; from += stretch) {
        const int64_t end = whole - from < stretch ? whole : from + stretch;
#pragma GCC unroll 24
        for (int i = 0; i < rows * tokens; i++) sum[i] = vec_zero();
        for (int64_t k = from; k < end; k += VL) NAME(step)(rows, tokens, k, length, w, next, soon, x, sum);
        if (!from) {
#pragma GCC unroll 24
            for (int i = 0; i < rows * tokens; i++) total[i] = sum[i];
        } else {
#pragma GCC unroll 24
            for (int i = 0; i < rows * tokens; i++) total[i] += sum[i];
        }
    }
    if (whole < length) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            WT tail[VL] = {0};
            memcpy(tail, w[r] + whole, (size_t)(length - whole) * sizeof(WT));
            const vec weight = LOAD_W(tail);
#pragma GCC unroll 6
            for (int t = 0; t < tokens; t++)
                total[r * tokens + t] = vec_fma(weight, vec_load_f32(x[t] + whole), total[r * tokens + t]);
        }
    }
}

/* out[t * rows + r] of four or eight rows. */
static inline __attribute__((always_inline)) void NAME(tile)(const int rows, const int tokens, int64_t length,
                                                             const WT *const *w, int64_t next, const WT *soon,
                                                             const float *const *x, float *out) {
    vec total[24];
    NAME(lanes)(rows, tokens, length, w, next, soon, x, total);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r += 4) {
            vec_sum4(total[r * tokens + t], total[(r + 1) * tokens + t], total[(r + 2) * tokens + t],
                     total[(r + 3) * tokens + t], out + t * rows + r);
        }
    }
}

/* Four rows against up to TILE_TOKENS tokens. Long rows that one token alone reads (`alone`) are read one after the other where
   that is what the processor's own prefetchers follow. Otherwise the four that lie at `soon` are asked for meanwhile. */
static void NAME(tile4)(int tokens, int alone, int64_t length, const WT *const *w, const WT *soon, const float *const *x,
                        float *out) {
    if (LONE_ROWS == 1 && alone && length / 4 >= DOT_STRETCH) {
        vec total[4];
        for (int r = 0; r < 4; r++) NAME(lanes)(1, 1, length, w + r, 0, NULL, x, total + r);
        vec_sum4(total[0], total[1], total[2], total[3], out);
        return;
    }
    switch (tokens) {
    case 1: NAME(tile)(4, 1, length, w, 0, soon, x, out); break;
    case 2: NAME(tile)(4, 2, length, w, 0, soon, x, out); break;
#if TILE_TOKENS > 3
    case 3: NAME(tile)(4, 3, length, w, 0, soon, x, out); break;
    case 4: NAME(tile)(4, 4, length, w, 0, soon, x, out); break;
    case 5: NAME(tile)(4, 5, length, w, 0, soon, x, out); break;
#endif
    default: NAME(tile)(4, TILE_TOKENS, length, w, 0, soon, x, out); break;
    }
}
