/* The order of initialisers and finalisers over three objects, with and without priorities. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define HERE(name) JOIN(name, PART)

#define SAY(name) \
  static void HERE(name##_)(void) { printf(#name " of %d\n", PART); }
SAY(init)
SAY(ctor)
SAY(ctor_again)
SAY(ctor_300)
SAY(fini)
SAY(dtor)
SAY(dtor_again)

static void at_exit(void) { printf("at exit of %d\n", PART); }

__attribute__((constructor)) static void plain(int argc, char **argv, char **environment) {
  printf("plain of %d: %d, %s, %d\n", PART, argc, argc > 1 ? argv[1] : "-", environment != 0);
  atexit(at_exit);
}
__attribute__((constructor(150 + PART))) static void early(void) { printf("early of %d\n", PART); }
__attribute__((constructor(1000))) static void late(void) { printf("late of %d\n", PART); }
__attribute__((destructor)) static void last(void) { printf("last of %d\n", PART); }
__attribute__((destructor(150 + PART))) static void very_last(void) {
  printf("very last of %d\n", PART);
}

typedef void (*function)(void);
/* Aligned like pointers: the greater alignment of arrays would put null pointers between them. */
#define IN(name) __attribute__((section(name), used, aligned(sizeof(function)))) static function
IN(".init_array.00160") HERE(in_numbered) = HERE(init_);
IN(".fini_array.200") HERE(in_fini) = HERE(fini_);
IN(".ctors") HERE(in_ctors)[] = {HERE(ctor_), HERE(ctor_again_)};
IN(".ctors.65235") HERE(in_ctors_300) = HERE(ctor_300_);
IN(".dtors") HERE(in_dtors)[] = {HERE(dtor_), HERE(dtor_again_)};
#if PART == 2
static void first(void) { puts("first of all"); }
IN(".preinit_array") in_preinit = first;
#endif

#if PART == 1
int main(void) {
  puts("main");
  return 4;
}
#endif
