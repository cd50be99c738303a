/* Functions of math.h that need no more than bits, and those for float by those for double, which
 * the host implements.
 */
#include "library.h"

static uint64_t bits_of(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

static double of_bits(uint64_t bits) {
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

#define SIGN 0x8000000000000000ULL
#define EXPONENT 0x7ff0000000000000ULL

double fabs(double x) { return of_bits(bits_of(x) & ~SIGN); }

double copysign(double x, double y) { return of_bits((bits_of(x) & ~SIGN) | (bits_of(y) & SIGN)); }

double fmax(double x, double y) { return x != x ? y : y != y ? x : x < y ? y : x; }

double fmin(double x, double y) { return x != x ? y : y != y ? x : y < x ? y : x; }

double fdim(double x, double y) { return x != x ? x : y != y ? y : x > y ? x - y : 0; }

double frexp(double x, int *exponent) {
  uint64_t bits = bits_of(x);
  *exponent = 0;
  if (!(bits & ~SIGN) || (bits & EXPONENT) == EXPONENT)
    return x;
  if (!(bits & EXPONENT)) {
    x = frexp(x * 0x1p64, exponent);
    *exponent -= 64;
    return x;
  }
  *exponent = (int)((bits & EXPONENT) >> 52) - 1022;
  return of_bits((bits & ~EXPONENT) | 0x3fe0000000000000ULL);
}

double ldexp(double x, int exponent) {
  for (; exponent > 1000; exponent -= 1000) {
    x *= 0x1p1000;
    if (exponent > 4000)
      exponent = 4000;
  }
  /* In two steps at most: what is rounded twice would be wrong. */
  if (exponent < -1000) {
    if (exponent < -2200)
      exponent = -2200;
    for (; exponent < -1021; exponent += 969)
      x *= 0x1p-969;
  }
  return x * of_bits((uint64_t)(exponent + 1023) << 52);
}

double scalbn(double x, int exponent) { return ldexp(x, exponent); }

double trunc(double x);
double round(double x);
double rint(double x);

double modf(double x, double *whole) {
  *whole = trunc(x);
  return copysign((bits_of(x) & ~SIGN) == EXPONENT ? 0 : x - *whole, x);
}

long lround(double x) { return (long)round(x); }

long long llround(double x) { return (long long)round(x); }

long lrint(double x) { return (long)rint(x); }

long long llrint(double x) { return (long long)rint(x); }

#define FLOAT_1(name)                                                                              \
  double name(double);                                                                             \
  float name##f(float x) { return (float)name(x); }
#define FLOAT_2(name)                                                                              \
  double name(double, double);                                                                     \
  float name##f(float x, float y) { return (float)name(x, y); }

FLOAT_1(acos)
FLOAT_1(asin)
FLOAT_1(atan)
FLOAT_1(cbrt)
FLOAT_1(ceil)
FLOAT_1(cos)
FLOAT_1(cosh)
FLOAT_1(exp)
FLOAT_1(exp2)
FLOAT_1(fabs)
FLOAT_1(floor)
FLOAT_1(log)
FLOAT_1(log2)
FLOAT_1(log10)
FLOAT_1(rint)
FLOAT_1(round)
FLOAT_1(sin)
FLOAT_1(sinh)
FLOAT_1(sqrt)
FLOAT_1(tan)
FLOAT_1(tanh)
FLOAT_1(trunc)
FLOAT_2(atan2)
FLOAT_2(copysign)
FLOAT_2(fmax)
FLOAT_2(fmin)
FLOAT_2(fmod)
FLOAT_2(hypot)
FLOAT_2(pow)
