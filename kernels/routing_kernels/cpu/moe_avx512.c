#include "vec_avx512.h"
#define RUN rk_moe_run_avx512
#include "moe_body.h"
