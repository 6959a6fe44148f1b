/* e^x for the weights of a softmax, a vector at a time. */
#ifndef RK_EXPONENTIAL_H
#define RK_EXPONENTIAL_H
#include "isa.h"

/* e^x of what is not above 0, to about one unit in the last place; 0 where the result would be no normal number.
   x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r. */
static inline vec exponential(vec x) {
    const float least = -87.0f;
    const vec shift = vec_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const vec bounded = vec_max(vec_set(least), x);
    const vec n = vec_fma(bounded, vec_set(1.44269504088896341f), shift) - shift;
    const vec r = vec_fma(n, vec_set(-1.42860682030941723e-6f), vec_fma(n, vec_set(-0.693145751953125f), bounded));
    vec p = vec_set(1.0f / 5040.0f);
    p = vec_fma(p, r, vec_set(1.0f / 720.0f));
    p = vec_fma(p, r, vec_set(1.0f / 120.0f));
    p = vec_fma(p, r, vec_set(1.0f / 24.0f));
    p = vec_fma(p, r, vec_set(1.0f / 6.0f));
    p = vec_fma(p, r, vec_set(0.5f));
    p = vec_fma(p, r, vec_set(1.0f));
    p = vec_fma(p, r, vec_set(1.0f));
    return vec_power(p, n, x, least);
}
#endif
