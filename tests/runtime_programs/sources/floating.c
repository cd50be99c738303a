/* long double, __float128 and complex arithmetic: the compiler's helpers, and libm's functions.
 *
 * links: m
 */
#include <complex.h>
#include <math.h>
#include <stdio.h>

#ifdef __SIZEOF_FLOAT128__
typedef __float128 quad;
#else
typedef long double quad; /* of which that is the format there */
#endif

static volatile long double third = 3.0L;
static volatile double angle = 0.75;
static volatile quad wide = 10;

int main(void) {
  long double sum = 0;
  for (int i = 1; i < 50; i++)
    sum += 1 / (i * third);
  printf("%.15Lf %.15Lf %.15Lf\n", sum, sqrtl(sum), powl(sum, third));
  printf("%.12f %.12f %.12f %.0f\n", sin(angle), exp(angle), fma(angle, 2, 3), floor(-angle));
  quad quotient = 1 / wide + wide * wide - wide;
  printf("%.12f %d %d\n", (double)quotient, quotient > wide, (int)quotient);
  double complex number = angle + 2 * I;
  number = number * number / (1 - I);
  printf("%.12f %.12f %.12f\n", creal(number), cimag(number), cabs(number));
  union { long double number; unsigned char bytes[10]; } bits = {.number = sum};
  for (int i = 0; i < 10; i++)
    printf("%02x", bits.bytes[i]);
  printf(" %d %Lf\n", (int)lrintl(sum * 1000), nextafterl(1.0L, 2.0L) - 1);
  return (int)(sum * 10);
}
