// Exceptions in, through and across two objects; of the C++ library only its runtime.
extern "C" int printf(const char *, ...);
extern "C" void qsort(void *, unsigned long, unsigned long, int (*)(const void *, const void *));

struct Base {
  int number;
  explicit Base(int n) : number(n) {}
  virtual ~Base() { printf("~Base %d\n", number); }
  virtual const char *name() const { return "Base"; }
};
struct Derived : Base {
  explicit Derived(int n) : Base(n) {}
  const char *name() const override { return "Derived"; }
};
struct Guard {
  const char *text;
  ~Guard() { printf("~Guard %s\n", text); }
};

int thrower(int what);
int middle(int what);
int sorted(int what);

#if PART == 1
static int catcher(int what) {
  Guard guard{"catcher"};
  try {
    return middle(what);
  } catch (int number) {
    printf("int %d\n", number);
  } catch (const Derived &derived) {
    printf("%s %d as Derived\n", derived.name(), derived.number);
  } catch (const Base &base) {
    printf("%s %d as Base\n", base.name(), base.number);
  } catch (...) {
    printf("something\n");
  }
  return -1;
}

static int nested() {
  try {
    try {
      thrower(1);
    } catch (int number) {
      Guard guard{"nested"};
      try {
        thrower(2);
      } catch (const Base &) {
        printf("inner\n");
      }
      throw;
    }
  } catch (int number) {
    printf("outer %d\n", number);
    return number;
  }
  return 0;
}

static int function_try(int what) try {
  return thrower(what);
} catch (...) {
  printf("function try block\n");
  return 8;
}

struct Static {
  Static() {
    try {
      thrower(1);
    } catch (int number) {
      printf("in an initialiser: %d\n", number);
    }
  }
  ~Static() {
    try {
      thrower(2);
    } catch (Base &base) {
      printf("in a destructor: %s\n", base.name());
    }
  }
};
static Static object;

int main() {
  int sum = 0;
  for (int what = 0; what < 5; ++what)
    sum += catcher(what);
  sum += nested() + function_try(3);
  try {
    sorted(1);
  } catch (int number) {
    printf("through the C library: %d\n", number);
  }
  printf("sum %d\n", sum);
  return 0;
}
#else
int thrower(int what) {
  switch (what) {
  case 1:
    throw 42;
  case 2:
    throw Derived(2);
  case 3:
    throw Base(3);
  case 4:
    throw "text";
  }
  return what;
}
int middle(int what) {
  Guard guard{"middle"};
  return thrower(what);
}
static int compare(const void *, const void *) {
  Guard guard{"compare"};
  throw 77;
}
int sorted(int what) {
  Guard guard{"sorted"};
  int numbers[2] = {what, 0};
  qsort(numbers, 2, sizeof(int), compare);
  return numbers[0];
}
#endif
