/* Functions that register exit and fork handlers: per-dylib functions, because they pass the handle
 * of their dylib. In a native program libc_nonshared.a defines them.
 */
#include <errno.h>

#include "wrapper.h"

#define OWN WEAK HIDDEN

extern char __dso_handle HIDDEN;
extern int __cxa_atexit(void (*)(void *), void *, void *);
extern int __cxa_at_quick_exit(void (*)(void *), void *);
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *) WEAK;

OWN int atexit(void (*function)(void)) {
  return __cxa_atexit((void (*)(void *))function, 0, &__dso_handle);
}

OWN int at_quick_exit(void (*function)(void)) {
  return __cxa_at_quick_exit((void (*)(void *))function, &__dso_handle);
}

OWN int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
  return __register_atfork ? __register_atfork(prepare, parent, child, &__dso_handle) : ENOSYS;
}
