/* The tile operations of AMX that the expert layer uses, and nothing else of it: rk_tile_configure, _release, _zero, _load,
   _store and _dot. Tile numbers are literals or macros of literals. With RK_TILES_EMULATED they are plain C that does exactly
   what the processor is documented to do (Intel, Software Developer's Manual, volume 1 chapter 18 and volume 2, TDPBF16PS),
   and ends the program with a message where the processor would fault. */
#ifndef RK_TILES_H
#define RK_TILES_H
#include <stdint.h>
#include <string.h>

#define RK_TILE_ROWS 16  /* palette 1: rows of a tile, bytes of a row, tiles */
#define RK_TILE_BYTES 64
#define RK_TILES 8

/* What LDTILECFG reads: 64 bytes. A tile with no rows and no bytes is not there. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row of each tile */
    uint8_t rows[16];
} rk_tile_config;
_Static_assert(sizeof(rk_tile_config) == 64, "the processor reads 64 bytes");

#ifndef RK_TILES_EMULATED
#include <immintrin.h>

/* GCC's tile intrinsics do not say that they read memory. This does, for what lies at an address. */
#define rk_tile_written(at) __asm__ volatile("" : : "r"(at) : "memory")

#define rk_tile_configure(config) \
    do {                          \
        rk_tile_written(config);  \
        _tile_loadconfig(config); \
    } while (0)
#define rk_tile_release() _tile_release()
#define rk_tile_zero(tile) _tile_zero(tile)
#define rk_tile_load(tile, from, stride)   \
    do {                                   \
        rk_tile_written(from);             \
        _tile_loadd(tile, (from), stride); \
    } while (0)
#define rk_tile_store(tile, to, stride)   \
    do {                                  \
        _tile_stored(tile, (to), stride); \
        rk_tile_written(to);              \
    } while (0)
#define rk_tile_dot(sum, left, right) _tile_dpbf16ps(sum, left, right)

#else
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local struct {
    rk_tile_config config;
    unsigned char tile[RK_TILES][RK_TILE_ROWS][RK_TILE_BYTES];
} rk_emulated;

static inline void rk_tile_expect(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "routing_kernels: a processor with AMX would fault here: %s\n", what);
    abort();
}

static inline void rk_tile_there(int tile) {
    rk_tile_expect(tile >= 0 && tile < RK_TILES, "there is no such tile");
    rk_tile_expect(rk_emulated.config.palette == 1, "the tiles are not configured");
    rk_tile_expect(rk_emulated.config.rows[tile] > 0, "the tile is not configured");
}

static inline void rk_tile_configure(const rk_tile_config *config) {
    rk_tile_expect(config->palette == 1, "the palette is not 1");
    for (int i = 0; i < 14; i++) rk_tile_expect(config->reserved[i] == 0, "a reserved byte is set");
    for (int i = 0; i < 16; i++) {
        rk_tile_expect(i < RK_TILES || (!config->rows[i] && !config->bytes[i]), "the palette has eight tiles");
        rk_tile_expect(config->rows[i] <= RK_TILE_ROWS, "a tile has more than 16 rows");
        rk_tile_expect(config->bytes[i] <= RK_TILE_BYTES, "a tile's row has more than 64 bytes");
        rk_tile_expect(!config->rows[i] == !config->bytes[i], "a tile has rows without bytes or bytes without rows");
    }
    memset(&rk_emulated, 0, sizeof rk_emulated);
    rk_emulated.config = *config;
}

static inline void rk_tile_release(void) { memset(&rk_emulated, 0, sizeof rk_emulated); }

static inline void rk_tile_zero(int tile) {
    rk_tile_there(tile);
    memset(rk_emulated.tile[tile], 0, sizeof rk_emulated.tile[tile]);
}

/* Rows beyond the configured ones, and bytes beyond a row's, become 0. */
static inline void rk_tile_load(int tile, const void *from, int64_t stride) {
    rk_tile_zero(tile);
    for (int r = 0; r < rk_emulated.config.rows[tile]; r++)
        memcpy(rk_emulated.tile[tile][r], (const char *)from + r * stride, rk_emulated.config.bytes[tile]);
}

static inline void rk_tile_store(int tile, void *to, int64_t stride) {
    rk_tile_there(tile);
    for (int r = 0; r < rk_emulated.config.rows[tile]; r++)
        memcpy((char *)to + r * stride, rk_emulated.tile[tile][r], rk_emulated.config.bytes[tile]);
}

/* Numbers below the normal ones count as 0, on the way in and on the way out; a NaN is above. */
static inline float rk_tile_flushed(float value) { return fabsf(value) < FLT_MIN ? copysignf(0.0f, value) : value; }

static inline float rk_tile_bf16(const unsigned char *at) {
    const uint32_t bits = (uint32_t)at[1] << 24 | (uint32_t)at[0] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return rk_tile_flushed(value);
}

/* sum[m][n] += over pairs k of left[m][2k] * right[k][2n] + left[m][2k + 1] * right[k][2n + 1]: the even and the odd products
   are added up apart from each other, k ascending, by fused multiplications; then even plus odd, then that to the sum. */
static inline void rk_tile_dot(int sum, int left, int right) {
    rk_tile_there(sum);
    rk_tile_there(left);
    rk_tile_there(right);
    rk_tile_expect(sum != left && sum != right && left != right, "the three tiles are not three");
    const rk_tile_config *config = &rk_emulated.config;
    rk_tile_expect(config->bytes[sum] % 4 == 0 && config->bytes[left] % 4 == 0 && config->bytes[right] % 4 == 0,
                   "a row is no whole number of pairs");
    rk_tile_expect(config->rows[sum] == config->rows[left], "the sum has other rows than the left side");
    rk_tile_expect(config->bytes[sum] == config->bytes[right], "the sum has other columns than the right side");
    rk_tile_expect(config->bytes[left] / 4 == config->rows[right], "the left side's pairs are not the right side's rows");
    for (int m = 0; m < config->rows[sum]; m++) {
        float part[2 * RK_TILE_BYTES / 4] = {0};
        for (int k = 0; k < config->bytes[left] / 4; k++)
            for (int i = 0; i < config->bytes[sum] / 2; i++) {
                const float a = rk_tile_bf16(rk_emulated.tile[left][m] + 4 * k + 2 * (i % 2));
                const float b = rk_tile_bf16(rk_emulated.tile[right][k] + 2 * i);
                part[i] = rk_tile_flushed(fmaf(a, b, part[i]));
            }
        for (int n = 0; n < config->bytes[sum] / 4; n++) {
            float total;
            memcpy(&total, rk_emulated.tile[sum][m] + 4 * n, sizeof total);
            total = rk_tile_flushed(rk_tile_flushed(total) + rk_tile_flushed(part[2 * n] + part[2 * n + 1]));
            memcpy(rk_emulated.tile[sum][m] + 4 * n, &total, sizeof total);
        }
    }
}
#endif
#endif
