#include "vec_avx2.h"
#define RUN rk_moe_run_avx2
#include "moe_body.h"
