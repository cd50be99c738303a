/* __cxa_demangle for a dylib that defines malloc and free itself; see dylib_malloc.c. */
#include <stdlib.h>
#include <string.h>

#include "wrapper.h"

extern char *__jitlink_process___cxa_demangle(const char *, char *, size_t *, int *);
extern void __jitlink_process_free(void *);

enum { OUT_OF_MEMORY = -1, INVALID_ARGUMENT = -3 };

WEAK HIDDEN char *__cxa_demangle(const char *name, char *buffer, size_t *size, int *status) {
  int outcome = INVALID_ARGUMENT;
  char *result = 0;
  if (!buffer || size) {
    char *theirs = __jitlink_process___cxa_demangle(name, 0, 0, &outcome);
    size_t length = theirs ? strlen(theirs) + 1 : 0;
    if (theirs && buffer && *size >= length) {
      result = buffer;
    } else if (theirs && (result = malloc(length))) {
      free(buffer);
      if (size)
        *size = length;
    } else if (theirs) {
      outcome = OUT_OF_MEMORY;
    }
    if (result)
      memcpy(result, theirs, length);
    __jitlink_process_free(theirs);
  }
  if (status)
    *status = outcome;
  return result;
}
