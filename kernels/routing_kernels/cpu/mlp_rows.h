/* The two ways of skipping rows of a matrix, for one weight type. Included once per type with WT, LOAD_W and NAME
   defined. Both leave a token's bits alone whatever rows or tokens are worked on beside it: a dot product's lanes run
   along the row and are added in one fixed order, and a sum of rows adds them one after the other, ascending. */

/* Dots of eight rows with x, which is zero padded to the next vector; `next` are the eight rows that follow, asked for
   ahead of time across this group's end. */
static void NAME(dot8)(const WT *const *w, const WT *const *next, const float *x, int64_t length, float *out) {
    const int64_t whole = length - length % VL, ahead = PREFETCH_BYTES / (int64_t)sizeof(WT);
    vec sum[8];
    for (int r = 0; r < 8; r++) sum[r] = vec_zero();
    for (int64_t k = 0; k < whole; k += VL) {
        const vec lane = vec_load_f32(x + k);
        const int inside = k + ahead < length;
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            __builtin_prefetch(inside ? w[r] + k + ahead : next[r] + (k + ahead - length), 0, 2);
            sum[r] = vec_fma(LOAD_W(w[r] + k), lane, sum[r]);
        }
    }
    if (whole < length) {
        const vec lane = vec_load_f32(x + whole);
        for (int r = 0; r < 8; r++) {
            WT tail[VL] = {0};
            memcpy(tail, w[r] + whole, (size_t)(length - whole) * sizeof(WT));
            sum[r] = vec_fma(LOAD_W(tail), lane, sum[r]);
        }
    }
    vec_sum4(sum[0], sum[1], sum[2], sum[3], out);
    vec_sum4(sum[4], sum[5], sum[6], sum[7], out + 4);
}

/* out[row] = w[row] . x for the listed rows alone; `n` of them. */
static void NAME(dots)(const WT *w, int64_t stride, const int32_t *rows, int64_t n, const float *x, int64_t length,
                       float *out) {
    for (int64_t i = 0; i < n; i += 8) {
        const WT *at[8], *next[8];
        float found[8];
        for (int64_t r = 0; r < 8; r++) { /* past the last row, the last row again: its sums are not kept */
            at[r] = w + rows[i + r < n ? i + r : n - 1] * stride;
            next[r] = w + rows[i + 8 + r < n ? i + 8 + r : n - 1] * stride;
        }
        NAME(dot8)(at, next, x, length, found);
        for (int64_t r = 0; r < 8 && i + r < n; r++) out[rows[i + r]] = found[r];
    }
}

/* out[0 ... n) += sum over r of value[r] * w[r][0 ... n), in order; out is readable and writable up to the next vector. */
static inline __attribute__((always_inline)) void NAME(add)(const int rows, const WT *const *w, const WT *const *next,
                                                            const float *value, int64_t n, float *out) {
    const int64_t whole = n - n % VL, line = 64 / (int64_t)sizeof(WT);
    vec factor[8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) factor[r] = vec_set(value[r]);
    for (int64_t from = 0; from < whole; from += line) { /* what follows is asked for once a line of the cache */
        const int64_t end = from + line < whole ? from + line : whole;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) __builtin_prefetch(next[r] + from, 0, 2);
        for (int64_t c = from; c < end; c += VL) {
            vec sum = vec_load_f32(out + c);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) sum = vec_fma(LOAD_W(w[r] + c), factor[r], sum);
            vec_store_f32(out + c, sum);
        }
    }
    if (whole < n) {
        vec sum = vec_load_f32(out + whole);
        for (int r = 0; r < rows; r++) {
            WT tail[VL] = {0};
            memcpy(tail, w[r] + whole, (size_t)(n - whole) * sizeof(WT));
            sum = vec_fma(LOAD_W(tail), factor[r], sum);
        }
        vec_store_f32(out + whole, sum);
    }
}

/* out[0 ... n) += sum over the listed rows of value[row] * w[row][0 ... n). */
static void NAME(add_rows)(const WT *w, int64_t stride, const int32_t *rows, int64_t count, const float *value,
                           int64_t n, float *out) {
    for (int64_t i = 0; i < count;) {
        const int64_t left = count - i, group = left >= 8 ? 8 : left >= 4 ? 4 : 1;
        const WT *at[8], *next[8];
        float factor[8];
        for (int64_t r = 0; r < group; r++) {
            at[r] = w + rows[i + r] * stride;
            next[r] = w + rows[i + group + r < count ? i + group + r : count - 1] * stride;
            factor[r] = value[rows[i + r]];
        }
        if (group == 8) NAME(add)(8, at, next, factor, n, out);
        else if (group == 4) NAME(add)(4, at, next, factor, n, out);
        else NAME(add)(1, at, next, factor, n, out);
        i += group;
    }
}

#undef WT
#undef LOAD_W
#undef NAME
