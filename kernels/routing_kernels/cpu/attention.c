/* Attention over the kept blocks of its map. Compiled once per instruction set (isa.h).

   Keys are packed transposed and values (with the extra columns beside them) as they are, block by block, as floats,
   and only the blocks that somebody keeps. Then each block of queries goes over its kept blocks once, with the running
   maximum and sum of the online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867). */
#include "isa.h"
#include "activation.h"
#include "exponential.h"
#include <stdlib.h>

#define MACS_PER_THREAD 500000 /* less work than this is not worth waking a thread for */
#if defined(RK_ISA_AVX512)
#define ROWS 6 /* queries of a tile of a product */
#define VECS 4 /* vectors of it: its sums, one row of the right side and a broadcast fit the registers */
#else
#define ROWS 4
#define VECS 2
#endif

typedef struct {
    const void *q, *k, *v;      /* [batch, heads, queries, depth], [batch, kv_heads, keys, depth], [.., values] */
    const int64_t *ptr, *col;   /* [heads, query blocks + 1], [kept] */
    const int64_t *starts;      /* [batch] the first key that is there, or NULL for key 0 */
    const int64_t *lengths;     /* [batch] the end of the keys that are there, or NULL for all */
    const float *sinks;         /* [heads], or NULL */
    const float *extra;         /* [keys, extras], or NULL */
    void *o;                    /* [batch, heads, queries, values] */
    float *sketch;              /* [batch, heads, queries, extras] */
    float *lse, *mass;          /* [batch, heads, queries], [batch, kept]; NULL: no statistics */
    int64_t *executed;          /* blocks computed, over batch and heads; rk_block_rows: how many that will be */
    int64_t batch, heads, kv_heads, queries, keys, depth, values, extras, kept, block, causal, window;
    int64_t q_strides[3], k_strides[3], v_strides[3];
    int64_t dtype, threads;
    double scale, softcap;
} rk_attention_call;

static int64_t blocks_of(const rk_attention_call *call, int64_t n) { return (n + call->block - 1) / call->block; }

/* Keys that a query may see: those that are there and, under the causal mask, not after it. The last query stands at
   the last key. */
static int64_t limit_of(const rk_attention_call *call, int64_t batch, int64_t query) {
    const int64_t there = call->lengths ? call->lengths[batch] : call->keys;
    const int64_t before = call->causal ? query + call->keys - call->queries + 1 : call->keys;
    return there < before ? there : before;
}

/* The first key that a query may see: not before those that are there and, under a window, among the last `window`. */
static int64_t lower_of(const rk_attention_call *call, int64_t batch, int64_t query) {
    const int64_t there = call->starts ? call->starts[batch] : 0;
    const int64_t reach = call->window ? query + call->keys - call->queries + 1 - call->window : 0;
    return there > reach ? there : reach;
}

/* Whether any query of a block sees any key of another. What a row of consecutive queries sees is one stretch of keys. */
static int seen(const rk_attention_call *call, int64_t batch, int64_t first, int64_t n, int64_t begin) {
    const int64_t low = lower_of(call, batch, first), high = limit_of(call, batch, first + n - 1);
    const int64_t end = begin + call->block;
    return (low > begin ? low : begin) < (high < end ? high : end);
}

/* Checks that the rows of blocks lie one after the other and ascend, and counts what can be seen of them. */
ENTRY(rk_block_rows)(const rk_attention_call *call) {
    const int64_t rows = blocks_of(call, call->queries), columns = blocks_of(call, call->keys);
    int64_t at = 0;
    *call->executed = 0;
    for (int64_t head = 0; head < call->heads; head++) {
        for (int64_t i = 0; i < rows; i++) {
            const int64_t *ptr = call->ptr + head * (rows + 1) + i;
            if (ptr[0] != at || ptr[1] < at || ptr[1] > call->kept) return RK_BAD_INDEX;
            const int64_t first = i * call->block, left = call->queries - first;
            const int64_t n = left < call->block ? left : call->block;
            for (int64_t before = -1; at < ptr[1]; before = call->col[at++]) {
                if (call->col[at] <= before || call->col[at] >= columns) return RK_BAD_INDEX;
                for (int64_t batch = 0; batch < call->batch; batch++)
                    *call->executed += seen(call, batch, first, n, call->col[at] * call->block);
            }
        }
    }
    return at == call->kept ? RK_OK : RK_BAD_INDEX;
}

/* c[rows][vecs] = a[rows][from ... to) times b[from ... to)[vecs], added to shrink[rows] * c where that is given. */
static inline __attribute__((always_inline)) void tile(const int rows, const int vecs, int64_t from, int64_t to,
                                                       const float *a, int64_t a_row, const float *b, int64_t b_row,
                                                       const float *shrink, float *c, int64_t c_row) {
    vec sum[ROWS][VECS], right[VECS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) {
            sum[r][i] = vec_zero();
            if (shrink) sum[r][i] = vec_load_f32(c + r * c_row + i * VL) * vec_set(shrink[r]);
        }
    for (int64_t k = from; k < to; k++) {
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) right[i] = vec_load_f32(b + k * b_row + i * VL);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const vec left = vec_set(a[r * a_row + k]);
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) sum[r][i] = vec_fma(left, right[i], sum[r][i]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) vec_store_f32(c + r * c_row + i * VL, sum[r][i]);
}

/* One tile's rows of a product, columns a multiple of VL wide; rows is 4 or ROWS. */
static inline __attribute__((always_inline)) void product(const int rows, int64_t columns, int64_t from, int64_t to,
                                                          const float *a, int64_t a_row, const float *b, int64_t b_row,
                                                          const float *shrink, float *c, int64_t c_row) {
    for (int64_t at = 0; at < columns;) {
        const int64_t left = (columns - at) / VL;
        const int vecs = left < VECS ? (int)left : VECS;
        if (vecs == VECS) tile(rows, VECS, from, to, a, a_row, b + at, b_row, shrink, c + at, c_row);
#if VECS == 4
        else if (vecs == 3) tile(rows, 3, from, to, a, a_row, b + at, b_row, shrink, c + at, c_row);
        else if (vecs == 2) tile(rows, 2, from, to, a, a_row, b + at, b_row, shrink, c + at, c_row);
#endif
        else tile(rows, 1, from, to, a, a_row, b + at, b_row, shrink, c + at, c_row);
        at += vecs * VL;
    }
}

/* How many queries a tile takes when `left` are left; a tile of four may reach past the last. */
static int tile_rows(int64_t left) { return left > 4 ? ROWS : 4; }

static void scores(int rows, int64_t columns, int64_t depth, const float *q, const float *keys, int64_t block,
                   float *score) {
    if (rows == ROWS) product(ROWS, columns, 0, depth, q, depth, keys, block, 0, score, block);
    else product(4, columns, 0, depth, q, depth, keys, block, 0, score, block);
}

static void mix(int rows, int64_t columns, int64_t from, int64_t to, const float *score, int64_t block,
                const float *values, const float *shrink, float *sum) {
    if (rows == ROWS) product(ROWS, columns, from, to, score, block, values, columns, shrink, sum, columns);
    else product(4, columns, from, to, score, block, values, columns, shrink, sum, columns);
}

typedef struct {
    int64_t columns;      /* values and extras, padded */
    int in_place;         /* the values are read where they lie */
    float *keys, *values; /* [batch, kv_heads, blocks] of [depth, block] and of [block, columns] */
} rk_packed;

typedef struct {
    float *q, *score, *sum; /* [block, depth], [block, block], [block, columns]; ROWS more rows each */
    float *most, *total;    /* [block] running maximum and sum */
    float *shrink;          /* [block, and ROWS] what a row's sum is multiplied by before this block's share */
    float *part, *at;       /* [blocks, block] a row's sum in a block, and the maximum it was taken against */
} rk_scratch;

static void pack(const rk_attention_call *call, const rk_packed *packed, int64_t batch, int64_t head, int64_t number) {
    const int64_t block = call->block, depth = call->depth, first = number * block;
    const int64_t place = (batch * call->kv_heads + head) * blocks_of(call, call->keys) + number;
    const int64_t n = call->keys - first < block ? call->keys - first : block;
    float *keys = packed->keys + place * depth * block, row[RK_PAD][64];
    const int64_t key = batch * call->k_strides[0] + head * call->k_strides[1];
    for (int64_t j = 0; j < block; j += RK_PAD) { /* a square of keys is turned at a time */
        for (int64_t d = 0; d < depth; d += 64) {
            const int64_t width = depth - d < 64 ? depth - d : 64;
            for (int64_t i = 0; i < RK_PAD; i++) {
                const int64_t at = key + (first + j + i) * call->k_strides[2] + d;
                if (j + i < n) widen_row(call->dtype, call->k, at, width, row[i], width);
                else memset(row[i], 0, (size_t)width * sizeof(float));
            }
            for (int64_t c = 0; c < width; c++)
                for (int64_t i = 0; i < RK_PAD; i++) keys[(d + c) * block + j + i] = row[i][c];
        }
    }
    if (packed->in_place) return;
    float *values = packed->values + place * block * packed->columns;
    const int64_t value = batch * call->v_strides[0] + head * call->v_strides[1];
    for (int64_t j = 0; j < n; j++) {
        float *out = values + j * packed->columns;
        const int64_t end = call->values + call->extras;
        widen_row(call->dtype, call->v, value + (first + j) * call->v_strides[2], call->values, out, call->values);
        if (call->extras)
            memcpy(out + call->values, call->extra + (first + j) * call->extras,
                   (size_t)call->extras * sizeof(float));
        memset(out + end, 0, (size_t)(packed->columns - end) * sizeof(float));
    }
}

/* Scores to weights of one query: of columns [first, end), whole vectors, it sees those from `lower` to before `limit`.
   Returns their sum. */
static float weigh(const rk_scratch *s, int64_t row, float *score, int64_t first, int64_t end, int64_t lower,
                   int64_t limit) {
    for (int64_t j = first; j < lower && j < end; j++) score[j] = -INFINITY;
    for (int64_t j = limit > first ? limit : first; j < end; j++) score[j] = -INFINITY;
    vec top = vec_load_f32(score + first), sum = vec_zero();
    for (int64_t j = first + VL; j < end; j += VL) top = vec_max(top, vec_load_f32(score + j));
    const float before = s->most[row], found = vec_most(top), most = found > before ? found : before;
    const vec base = vec_set(most == -INFINITY ? 0.0f : most);
    for (int64_t j = first; j < end; j += VL) {
        const vec weight = exponential(vec_load_f32(score + j) - base);
        vec_store_f32(score + j, weight);
        sum += weight;
    }
    const float part = vec_sum(sum);
    s->shrink[row] = 1.0f;
    if (most != before) {
        s->shrink[row] = rk_exp(before - most);
        s->total[row] *= s->shrink[row];
        s->most[row] = most;
    }
    s->total[row] += part;
    return part;
}

/* c tanh(s / c) of every score (Gemma 2), with tanh z = 1 - 2 / (1 + e^(2z)). */
static void cap(float *score, int64_t n, float most) {
    const float twice = 2.0f / most;
    for (int64_t j = 0; j < n; j++) score[j] = most - 2.0f * most / (1.0f + rk_exp(score[j] * twice));
}

/* The columns of a block, rounded to whole vectors, that the queries [row, row + rows) of a block see; 0 when none. What
   they see together is one stretch. */
static int columns_of(const rk_attention_call *call, int64_t batch, int64_t row, int64_t rows, int64_t begin,
                      int64_t *first, int64_t *end) {
    const int64_t low = lower_of(call, batch, row) - begin, high = limit_of(call, batch, row + rows - 1) - begin;
    *first = low > 0 ? low / VL * VL : 0;
    *end = high < call->block ? (high + VL - 1) / VL * VL : call->block;
    return high > 0 && (low > 0 ? low : 0) < (high < call->block ? high : call->block);
}

/* Returns how many blocks were computed. */
static int64_t attend(const rk_attention_call *call, const rk_packed *packed, const rk_scratch *s, int64_t batch,
                      int64_t head, int64_t number) {
    const int64_t block = call->block, depth = call->depth, columns = packed->columns, first = number * block;
    const int64_t n = call->queries - first < block ? call->queries - first : block;
    const int64_t *ptr = call->ptr + head * (blocks_of(call, call->queries) + 1) + number;
    const int64_t kv_head = head / (call->heads / call->kv_heads), key_blocks = blocks_of(call, call->keys);
    const float scale = (float)call->scale;
    int64_t computed = 0;
    memset(s->q + n * depth, 0, (size_t)(ROWS * depth) * sizeof(float));
    memset(s->sum, 0, (size_t)((n + ROWS) * columns) * sizeof(float));
    for (int64_t r = 0; r < n; r++) {
        const int64_t at = batch * call->q_strides[0] + head * call->q_strides[1] + (first + r) * call->q_strides[2];
        widen_row(call->dtype, call->q, at, depth, s->q + r * depth, depth);
        for (int64_t d = 0; d < depth; d++) s->q[r * depth + d] *= scale;
        s->most[r] = call->sinks ? call->sinks[head] : -INFINITY;
        s->total[r] = call->sinks ? 1.0f : 0.0f; /* a sink is a key without a value */
    }
    for (int64_t e = ptr[0]; e < ptr[1]; e++) {
        const int64_t begin = call->col[e] * block;
        float *part = s->part + (e - ptr[0]) * block, *at = s->at + (e - ptr[0]) * block;
        if (call->mass) memset(part, 0, (size_t)block * sizeof(float));
        if (call->mass) memset(at, 0, (size_t)block * sizeof(float));
        if (!seen(call, batch, first, n, begin)) continue;
        computed++;
        const int64_t place = (batch * call->kv_heads + kv_head) * key_blocks + call->col[e];
        const float *keys = packed->keys + place * depth * block, *values = packed->values + place * block * columns;
        if (packed->in_place)
            values = (const float *)call->v + batch * call->v_strides[0] + kv_head * call->v_strides[1] + begin * columns;
        int64_t from, to;
        for (int64_t r = 0; r < n; r += tile_rows(n - r)) {
            const int rows = tile_rows(n - r);
            const int64_t there = n - r < rows ? n - r : rows;
            if (!columns_of(call, batch, first + r, there, begin, &from, &to)) continue;
            scores(rows, to - from, depth, s->q + r * depth, keys + from, block, s->score + r * block + from);
            for (int64_t i = r; i < r + there; i++) {
                float *score = s->score + i * block;
                if (call->softcap != 0.0) cap(score + from, to - from, (float)call->softcap);
                const float sum = weigh(s, i, score, from, to, lower_of(call, batch, first + i) - begin,
                                        limit_of(call, batch, first + i) - begin);
                if (!call->mass) continue;
                part[i] = sum;
                at[i] = s->most[i] == -INFINITY ? 0.0f : s->most[i];
            }
        }
        for (int64_t r = 0; r < n; r += tile_rows(n - r)) {
            const int rows = tile_rows(n - r);
            const int64_t there = n - r < rows ? n - r : rows;
            if (!columns_of(call, batch, first + r, there, begin, &from, &to)) continue;
            const int64_t low = lower_of(call, batch, first + r) - begin;
            const int64_t high = limit_of(call, batch, first + r + there - 1) - begin;
            mix(rows, columns, low > from ? low : from, high < to ? high : to, s->score + r * block, block, values,
                s->shrink + r, s->sum + r * columns);
        }
    }
    const int64_t out = (batch * call->heads + head) * call->queries + first;
    for (int64_t r = 0; r < n; r++) {
        float *sum = s->sum + r * columns;
        const float share = s->total[r] == 0.0f ? 0.0f : 1.0f / s->total[r]; /* nothing seen: zeros */
        for (int64_t c = 0; c < call->values + call->extras; c++) sum[c] *= share;
        narrow(call->dtype, sum, call->o, (out + r) * call->values, call->values);
        if (call->extras)
            memcpy(call->sketch + (out + r) * call->extras, sum + call->values, (size_t)call->extras * sizeof(float));
        if (call->lse) call->lse[out + r] = s->total[r] == 0.0f ? -INFINITY : s->most[r] + logf(s->total[r]);
        s->total[r] = share;
        if (s->most[r] == -INFINITY) s->most[r] = 0.0f;
    }
    for (int64_t e = ptr[0]; call->mass && e < ptr[1]; e++) {
        float *part = s->part + (e - ptr[0]) * block;
        const float *at = s->at + (e - ptr[0]) * block;
        double mass = 0.0;
        for (int64_t r = 0; r < n; r++) part[r] *= rk_exp(at[r] - s->most[r]) * s->total[r];
        for (int64_t r = 0; r < n; r++) mass += part[r];
        call->mass[batch * call->kept + e] = (float)mass;
    }
    return computed;
}

/* Which blocks of keys any head of a group keeps. */
static void mark(const rk_attention_call *call, uint8_t *wanted) {
    const int64_t rows = blocks_of(call, call->queries), columns = blocks_of(call, call->keys);
    memset(wanted, 0, (size_t)(call->kv_heads * columns));
    for (int64_t head = 0; head < call->heads; head++) {
        uint8_t *mine = wanted + head / (call->heads / call->kv_heads) * columns;
        const int64_t *ptr = call->ptr + head * (rows + 1);
        for (int64_t e = ptr[0]; e < ptr[rows]; e++) mine[call->col[e]] = 1;
    }
}

ENTRY(rk_block_attention)(const rk_attention_call *call) {
    const int64_t block = call->block, rows = blocks_of(call, call->queries), columns = blocks_of(call, call->keys);
    const int threads = rk_threads(call->batch * call->kept * block * block * (call->depth + call->values),
                                   MACS_PER_THREAD, call->threads);
    rk_packed packed = {.columns = rk_padded(call->values + call->extras)};
    const int64_t packs = call->batch * call->kv_heads * columns, tasks = call->batch * call->heads * rows;
    packed.in_place = call->dtype == RK_F32 && call->v_strides[2] == packed.columns && packed.columns == call->values;
    const int64_t shared = packs * block * (call->depth + (packed.in_place ? 0 : packed.columns));
    const int64_t history = call->mass ? 2 * columns * block : 0;
    const int64_t rows_padded = block + ROWS;
    const int64_t own = rk_padded(rows_padded * (rk_padded(call->depth) + block + packed.columns + 3) + history);
    const size_t bytes = (size_t)(shared + own * threads) * sizeof(float) + (size_t)(call->kv_heads * columns);
    float *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!memory) return RK_NO_MEMORY;
    packed.keys = memory;
    packed.values = packed.keys + packs * block * call->depth;
    uint8_t *wanted = (uint8_t *)(memory + shared + own * threads);
    mark(call, wanted);
    int64_t executed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        rk_scratch s = {.q = memory + shared + own * omp_get_thread_num()};
        s.score = s.q + rows_padded * rk_padded(call->depth);
        s.sum = s.score + rows_padded * block;
        s.most = s.sum + rows_padded * packed.columns;
        s.total = s.most + rows_padded;
        s.shrink = s.total + rows_padded;
        s.part = s.shrink + rows_padded;
        s.at = s.part + columns * block;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < packs; i++) {
            const int64_t batch = i / (call->kv_heads * columns), place = i % (call->kv_heads * columns);
            const int64_t there = call->lengths ? call->lengths[batch] : call->keys, begin = place % columns * block;
            if (!wanted[place] || begin >= there || (call->starts && begin + block <= call->starts[batch])) continue;
            pack(call, &packed, batch, place / columns, place % columns);
        }
#pragma omp for schedule(dynamic) reduction(+ : executed)
        for (int64_t i = 0; i < tasks; i++) /* head by head, whose keys and values then stay near; long rows first */
            executed += attend(call, &packed, &s, i / (rows * call->heads), i / rows % call->heads, rows - 1 - i % rows);
    }
    free(memory);
    *call->executed = executed;
    return RK_OK;
}
