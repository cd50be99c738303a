/* dlopen, dlsym and dladdr on libraries of the process, and their errors. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    return 2;
  double (*cosine)(double);
  *(void **)&cosine = dlsym(library, "cos");
  printf("%.6f\n", cosine(0));
  printf("%d\n", dlsym(library, "no_such_function") == 0);
  const char *message = dlerror();
  printf("%d %d\n", message && strstr(message, "no_such_function") != 0, dlerror() == 0);
  printf("%d\n", dlopen("libno_such_library.so", RTLD_LAZY) == 0);
  printf("%d\n", (message = dlerror()) && strstr(message, "libno_such_library.so") != 0);
  Dl_info place;
  printf("%d", dladdr((void *)cosine, &place) != 0);
  printf(" %d\n", strstr(place.dli_fname, "libm") != 0);
  printf("%d\n", dladdr(dlsym(RTLD_DEFAULT, "strtoul"), &place) && place.dli_sname != 0);
  printf("%d\n", dlsym(RTLD_DEFAULT, "qsort") != 0);
  return dlclose(library);
}
