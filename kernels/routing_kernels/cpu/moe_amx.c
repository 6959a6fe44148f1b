/* The expert layer with its bfloat16 products on AMX tiles. Compiled twice: for processors that have them, where everything
   else is AVX-512's, and with RK_TILES_EMULATED, where tiles are plain C and everything else is portable: the same products
   on any machine, for tests. */
#define RK_TILED
#ifdef RK_TILES_EMULATED
#include "vec_portable.h"
#define RUN rk_moe_run_amx_emulated
#else
#include "vec_avx512.h"
#define RUN rk_moe_run_amx
#endif
#include "moe_body.h"

#ifndef RK_TILES_EMULATED
int rk_amx_agrees(void) { return tiles_agree(); }
#else
int rk_amx_emulated_agrees(void) { return tiles_agree(); }
#endif
