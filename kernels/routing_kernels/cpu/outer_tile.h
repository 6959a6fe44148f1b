/* Sums of rows of a weight for several slots at once, for one weight type. Included with WT, LOAD_W and NAME defined, before
   mlp_rows.h with the same. A sum takes its rows one after the other, ascending, as add_rows does: the two give the
   same bits. */

static void NAME(add_rows)(const WT *w, int64_t stride, const int32_t *rows, int64_t count, const float *value,
                           int64_t n, float *out);

#define OUTER_SLOTS 6 /* with two vectors of columns: twelve sums, two of weights and one of x of sixteen registers */
#define OUTER_WORTH 8 /* slots that repay reading a few columns of many rows */

/* sum[t][0 ... 2 VL) += sum over k < rows of x[t][k] * w[k][0 ... 2 VL). */
static inline __attribute__((always_inline)) void NAME(outer)(const int slots, const WT *w, int64_t stride, int64_t rows,
                                                              const float *const *x, float *const *sum) {
    vec part[OUTER_SLOTS][2];
#pragma GCC unroll 6
    for (int t = 0; t < slots; t++) {
        part[t][0] = vec_load_f32(sum[t]);
        part[t][1] = vec_load_f32(sum[t] + VL);
    }
    for (int64_t k = 0; k < rows; k++) {
        const vec low = LOAD_W(w + k * stride), high = LOAD_W(w + k * stride + VL);
#pragma GCC unroll 6
        for (int t = 0; t < slots; t++) {
            const vec factor = vec_set(x[t][k]);
            part[t][0] = vec_fma(low, factor, part[t][0]);
            part[t][1] = vec_fma(high, factor, part[t][1]);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < slots; t++) {
        vec_store_f32(sum[t], part[t][0]);
        vec_store_f32(sum[t] + VL, part[t][1]);
    }
}

/* The same for any number of slots and n columns; `rows` lists 0, 1, 2 ... Few slots read whole rows, as memory
   likes it. */
static void NAME(add_outer)(const WT *w, int64_t stride, const int32_t *rows, int64_t count, int64_t slots,
                            const float *const *x, int64_t n, float *const *out) {
    const int64_t whole = slots >= OUTER_WORTH ? n - n % (2 * VL) : 0;
    for (int64_t c = 0; c < whole; c += 2 * VL)
        for (int64_t t = 0; t < slots; t += OUTER_SLOTS) {
            float *sum[OUTER_SLOTS];
            for (int i = 0; i < OUTER_SLOTS; i++) sum[i] = out[t + i < slots ? t + i : slots - 1] + c;
            switch (slots - t) {
            case 1: NAME(outer)(1, w + c, stride, count, x + t, sum); break;
            case 2: NAME(outer)(2, w + c, stride, count, x + t, sum); break;
            case 3: NAME(outer)(3, w + c, stride, count, x + t, sum); break;
            case 4: NAME(outer)(4, w + c, stride, count, x + t, sum); break;
            case 5: NAME(outer)(5, w + c, stride, count, x + t, sum); break;
            default: NAME(outer)(OUTER_SLOTS, w + c, stride, count, x + t, sum); break;
            }
        }
    for (int64_t t = 0; t < slots && whole < n; t++)
        NAME(add_rows)(w + whole, stride, rows, count, x[t], n - whole, out[t] + whole);
}

#undef OUTER_SLOTS
#undef OUTER_WORTH
