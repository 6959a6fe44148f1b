#include "vec_portable.h"
#define RUN rk_moe_run_portable
#include "moe_body.h"
