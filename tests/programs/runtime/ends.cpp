// Programs that end by uncaught exceptions, of the kind in the argument.
extern "C" int printf(const char *, ...);
extern "C" int fflush(void *);

struct Guard {
  ~Guard() {
    printf("~Guard\n");
    fflush(nullptr);
  }
};

int thrower(int);

#if PART == 1
static int quiet(int number) noexcept { return thrower(number); }

struct Throws {
  ~Throws() noexcept(false) { throw 1; }
};

int main(int argc, char **argv) {
  printf("begin\n");
  fflush(nullptr);
  switch (argc > 1 ? argv[1][0] : 0) {
  case 'u':
    return thrower(1);
  case 'n':
    try {
      return quiet(2);
    } catch (...) {
      printf("not reached\n");
    }
    break;
  case 'd':
    try {
      Throws throws;
      throw 2;
    } catch (...) {
      printf("not reached\n");
    }
  }
  return 0;
}
#else
int thrower(int number) {
  Guard guard;
  throw number;
}
#endif
