/* How much of its freedom an attention map uses, from its singular values. Compiled once per instruction set (isa.h).

   The singular values of a map A are the roots of the eigenvalues of A A^T: the product is brought to a tridiagonal
   matrix by reflections, whose eigenvalues come from the square-root-free QL iteration of Pal, Walker and Kahan
   (Reinsch 1971). Everything is double, so they are those of A to about 1e-8 of the largest. A map's matrix stays in the
   processor's cache from first to last: that, not the arithmetic, is what a library call for small matrices loses by. */
#include "isa.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    const float *maps;      /* [count, rows, width], contiguous */
    const int64_t *columns; /* [groups, rows]: which columns make a map square; 0 where width is rows */
    float *out;             /* [RK_RANKS, count] */
    int64_t count, rows, width, maps_per_group, threads;
    double tolerance;
} rk_ranks_call;

enum { RANK, STABLE, EFFECTIVE, ENTROPY, RK_RANKS };

#define WORK_PER_THREAD 400000 /* multiplications; fewer are not worth waking a thread for */
#define SWEEPS 60              /* of QL for one eigenvalue; two are the rule */

/* ln x of a positive normal x to two units in the last place: x = 2^e m with m in [0.70, 1.42), and the odd series of
   2 artanh((m - 1) / (m + 1)). Written without branches, so that the compiler makes vectors of it. */
static inline __attribute__((always_inline)) float ln(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int32_t exponent = (bits - 0x3f350000) >> 23;
    bits -= exponent * (1 << 23);
    float m;
    memcpy(&m, &bits, sizeof m);
    const float t = (m - 1.0f) / (m + 1.0f), s = t * t;
    const float series = t * (2.0f + s * (0.66666667f + s * (0.4f + s * (0.28571429f + s * (0.22222222f + s * 0.18181818f)))));
    return series + (float)exponent * 0.69314718f;
}

/* Entropy of a row of weights after division by their sum, in nats; 0 for no weight at all. Adds the sum to `whole`. */
static double row_entropy(const float *row, int64_t width, double *whole) {
    double total = 0.0, product = 0.0;
#pragma omp simd reduction(+ : total, product)
    for (int64_t j = 0; j < width; j++) {
        const float a = row[j], safe = a > 1e-37f ? a : 1.0f;
        total += (double)a;
        product += (double)(a * ln(safe));
    }
    *whole += total;
    return total > 0.0 ? log(total) - product / total : 0.0;
}

#define DL (VL / 2) /* doubles in a vector; rows of matrices are padded with zeros to whole vectors of any build (RK_PAD) */

static inline dvec load(const double *from) {
    dvec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(double *to, dvec v) { memcpy(to, &v, sizeof v); }

static inline double sum_of(dvec v) {
    double sum = 0.0;
    for (int lane = 0; lane < DL; lane++) sum += v[lane];
    return sum;
}

static inline double dot(const double *x, const double *y, int64_t n) {
    dvec sum = {0};
    for (int64_t k = 0; k < n; k += DL) sum += load(x + k) * load(y + k);
    return sum_of(sum);
}

/* The square part of a map as doubles, rows of `pitch`; `last` says behind which column a row is zero. */
static void square_part(const float *map, const int64_t *columns, int64_t n, int64_t width, int64_t pitch, double *a,
                        int64_t *last) {
    for (int64_t i = 0; i < n; i++) {
        const float *row = map + i * width;
        double *to = a + i * pitch;
        if (columns)
            for (int64_t j = 0; j < n; j++) to[j] = (double)row[columns[j]];
        else
            for (int64_t j = 0; j < n; j++) to[j] = (double)row[j];
        for (int64_t j = n; j < pitch; j++) to[j] = 0.0;
        int64_t end = n;
        while (end > 0 && to[end - 1] == 0.0) end--;
        last[i] = end;
    }
}

/* A A^T, four columns at a time: a row serves them all. */
static void gram(const double *a, const int64_t *last, int64_t n, int64_t pitch, double *g) {
    for (int64_t i = 0; i < n; i++) {
        const double *x = a + i * pitch;
        int64_t k = 0;
        for (; k + 4 <= i + 1; k += 4) {
            dvec sum[4] = {{0}, {0}, {0}, {0}};
            int64_t end = 0;
            for (int part = 0; part < 4; part++) end = last[k + part] > end ? last[k + part] : end;
            end = last[i] < end ? last[i] : end;
            for (int64_t j = 0; j < end; j += DL) {
                const dvec xj = load(x + j);
                for (int part = 0; part < 4; part++) sum[part] += xj * load(a + (k + part) * pitch + j);
            }
            for (int part = 0; part < 4; part++) g[i * pitch + k + part] = sum_of(sum[part]);
        }
        for (; k <= i; k++) g[i * pitch + k] = dot(x, a + k * pitch, last[i] < last[k] ? last[i] : last[k]);
        for (k = 0; k < i; k++) g[k * pitch + i] = g[i * pitch + k];
        for (k = n; k < pitch; k++) g[i * pitch + k] = 0.0;
    }
}

/* g (symmetric, overwritten) to a tridiagonal matrix with the same eigenvalues: diagonal d, squares of the off-diagonal e,
   where e[i] stands between i and i + 1. Reflection i takes row i of what is left to its last two entries: G - u q^T - q u^T.
   Rows take the last reflection and their product with the next vector in one pass, so each is read once a step. */
static void tridiagonal(double *g, int64_t n, int64_t pitch, double *d, double *e, double *scratch) {
    double *u = scratch, *q = u + pitch, *next = q + pitch, *p = next + pitch, trace = 0.0;
    memset(scratch, 0, (size_t)(4 * pitch) * sizeof(double));
    for (int64_t i = 0; i < n; i++) trace += g[i * pitch + i];
    const double nothing = trace * trace * 1e-36; /* a row this short is rounding, and its square would vanish */
    for (int64_t i = n - 1; i > 0; i--) {
        double *row = g + i * pitch;
        const int64_t whole = (i + DL - 1) / DL * DL;
        for (int64_t k = 0; k < i; k++) next[k] = row[k] - u[i] * q[k] - q[i] * u[k];
        d[i] = row[i] - 2.0 * u[i] * q[i];
        for (int64_t k = i; k < whole; k++) next[k] = 0.0;
        const double corner = next[i - 1];
        next[i - 1] = 0.0;
        const double others = dot(next, next, whole), length = sqrt(others + corner * corner);
        const int reflects = others > nothing;
        e[i - 1] = corner * corner + (reflects ? others : 0.0);
        next[i - 1] = corner + (corner < 0.0 ? -length : length);
        const double half = reflects ? (others + next[i - 1] * next[i - 1]) / 2.0 : 1.0;
        for (int64_t j = 0; j < i; j++) {
            double *to = g + j * pitch;
            const double uj = u[j], qj = q[j];
            dvec sum = {0};
            for (int64_t k = 0; k < whole; k += DL) {
                const dvec left = load(to + k) - uj * load(q + k) - qj * load(u + k);
                store(to + k, left);
                sum += left * load(next + k);
            }
            p[j] = sum_of(sum);
        }
        const double shift = reflects ? dot(p, next, whole) / (2.0 * half * half) : 0.0;
        for (int64_t k = 0; k < whole; k++) {
            u[k] = reflects && k < i ? next[k] : 0.0;
            q[k] = reflects && k < i ? p[k] / half - shift * next[k] : 0.0;
        }
    }
    d[0] = g[0] - 2.0 * u[0] * q[0];
}

/* The block turned end to end has the same eigenvalues; QL wants the smaller entries first. */
static void turn_block(double *d, double *e, int64_t first, int64_t end) {
    if (fabs(d[end]) >= fabs(d[first])) return;
    for (int64_t i = first, j = end; i < j; i++, j--) {
        const double kept = d[i];
        d[i] = d[j];
        d[j] = kept;
    }
    for (int64_t i = first, j = end - 1; i < j; i++, j--) {
        const double kept = e[i];
        e[i] = e[j];
        e[j] = kept;
    }
}

static int negligible(const double *d, const double *e, int64_t i, double floor) {
    return e[i] <= 4.9e-32 * fabs(d[i] * d[i + 1]) || e[i] <= floor;
}

/* Eigenvalues of the tridiagonal matrix of diagonal d and squared off-diagonal e, in d, in no order; 0 where QL does not
   come to an end. */
static int eigenvalues(double *d, double *e, int64_t n) {
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(d[i]));
    const double floor = largest * largest * 4.9e-32 * 1e-4; /* far below what a double can tell from nothing */
    for (int64_t first = 0, end; first < n; first = end + 1) {
        for (end = first; end < n - 1 && !negligible(d, e, end, floor);) end++;
        if (end > first) turn_block(d, e, first, end);
        for (int64_t l = first; l < end; l++) {
            int sweeps = 0;
            for (;;) {
                int64_t m = l;
                while (m < end && !negligible(d, e, m, floor)) m++;
                if (m == l) break;
                if (sweeps++ == SWEEPS) return 0;
                const double root = sqrt(e[l]), half = (d[l + 1] - d[l]) / (2.0 * root), r = sqrt(half * half + 1.0);
                const double sigma = d[l] - root / (half + (half < 0.0 ? -r : r));
                double c = 1.0, s = 0.0, gamma = d[m] - sigma, p = gamma * gamma;
                for (int64_t i = m - 1; i >= l; i--) {
                    /* The two quotients do not wait for each other: that is what the iteration takes its time for. */
                    const double bb = e[i], sum = p + bb, inverse = 1.0 / sum, over = sum / p, last = gamma;
                    if (i != m - 1) e[i + 1] = s * sum;
                    const double before = c;
                    c = p * inverse;
                    s = bb * inverse;
                    gamma = c * (d[i] - sigma) - s * last;
                    d[i + 1] = last + (d[i] - gamma);
                    p = p != 0.0 ? gamma * gamma * over : before * bb;
                }
                e[l] = s * p;
                d[l] = sigma + gamma;
            }
        }
    }
    return 1;
}

static void write_ranks(const rk_ranks_call *call, int64_t map, const double *values, int64_t n, double entropy) {
    float *out = call->out + map;
    const int64_t row = call->count;
    double largest = 0.0, total = 0.0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, values[i]);
    out[ENTROPY * row] = (float)entropy;
    out[RANK * row] = out[STABLE * row] = out[EFFECTIVE * row] = 0.0f;
    if (!(largest > 0.0)) return;
    int64_t rank = 0;
    double stable = 0.0, product = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double square = values[i] > 0.0 ? values[i] / largest : 0.0, ratio = sqrt(square);
        rank += ratio > call->tolerance;
        stable += square;
        total += ratio;
        product += ratio > 0.0 ? ratio * log(ratio) : 0.0;
    }
    out[RANK * row] = (float)rank;
    out[STABLE * row] = (float)stable;
    out[EFFECTIVE * row] = (float)exp(log(total) - product / total);
}

static void one_map(const rk_ranks_call *call, int64_t map, double *scratch) {
    const int64_t n = call->rows, pitch = rk_padded(n);
    const float *rows = call->maps + map * n * call->width;
    double *a = scratch, *g = a + n * pitch, *d = g + n * pitch, *e = d + n, *vectors = e + n, whole = 0.0, entropy = 0.0;
    for (int64_t i = 0; i < n; i++) entropy += row_entropy(rows + i * call->width, call->width, &whole);
    if (isfinite(whole)) {
        const int64_t *columns = call->columns ? call->columns + map / call->maps_per_group * n : 0;
        int64_t *last = (int64_t *)(vectors + 4 * pitch);
        square_part(rows, columns, n, call->width, pitch, a, last);
        gram(a, last, n, pitch, g);
        tridiagonal(g, n, pitch, d, e, vectors);
        if (eigenvalues(d, e, n)) {
            write_ranks(call, map, d, n, entropy / (double)n);
            return;
        }
    }
    for (int field = RANK; field < RK_RANKS; field++) call->out[field * call->count + map] = field == RANK ? 0.0f : NAN;
}

ENTRY(rk_map_ranks)(const rk_ranks_call *call) {
    const int64_t n = call->rows, pitch = rk_padded(n);
    const int64_t bytes = (2 * n * pitch + 3 * n + 4 * pitch) * (int64_t)sizeof(double);
    const int threads = rk_threads(call->count * n * n * n, WORK_PER_THREAD, call->threads);
    double *scratch = malloc((size_t)(threads * bytes));
    if (!scratch) return RK_NO_MEMORY;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t map = 0; map < call->count; map++)
        one_map(call, map, scratch + omp_get_thread_num() * (bytes / (int64_t)sizeof(double)));
    free(scratch);
    return RK_OK;
}
