/* reallocarray for a dylib that defines malloc and free itself; see dylib_malloc.c. Apart, because
 * it needs realloc.
 */
#include <errno.h>
#include <stdlib.h>

#include "wrapper.h"

WEAK HIDDEN void *reallocarray(void *memory, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return 0;
  }
  return realloc(memory, bytes);
}
