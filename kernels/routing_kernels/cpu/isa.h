/* The vectors of the instruction set that this object is built for, and the name of its entry points. A source that
   includes this is compiled once per instruction set, with RK_ISA_AVX2, RK_ISA_AVX512 or neither defined; the caller
   picks the entry point by its suffix, after asking rk_isa_available. */
#ifndef RK_ISA_H
#define RK_ISA_H
#include "common.h"

#if defined(RK_ISA_AVX512)
#include "vec_avx512.h"
#define ENTRY(name) EXPORT int name##_avx512
#elif defined(RK_ISA_AVX2)
#include "vec_avx2.h"
#define ENTRY(name) EXPORT int name##_avx2
#else
#include "vec_portable.h"
#define ENTRY(name) EXPORT int name##_portable
#endif
#include "narrow.h"
#include "widen.h"
#endif
