// Static objects of three object files: construction by priority and order, and destruction.
//
// parts: 3
#include <stdio.h>

struct Tracer {
  const char *name;
  int part;
  Tracer(const char *n, int p) : name(n), part(p) { printf("+%s %d\n", name, part); }
  ~Tracer() { printf("-%s %d\n", name, part); }
};
Tracer &local();

static Tracer plain{"plain", PART};
__attribute__((init_priority(1000 - PART))) static Tracer numbered{"numbered", PART};
static Tracer &reference = local();
static int computed = printf("computed in %d\n", PART);

#if PART == 2
Tracer &local() {
  static Tracer inside{"local", PART};
  return inside;
}
#endif
#if PART == 1
int main() {
  static Tracer late{"static of main", 0};
  Tracer automatic{"automatic", 0};
  printf("main %s\n", reference.name);
  return computed;
}
#endif
