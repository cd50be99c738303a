/* dlopen and its kin: per-dylib functions, because they pass the handle of the caller's dylib.
 * Names are those of the caller's session, RTLD_NEXT is what follows the caller's dylib.
 */
#include <dlfcn.h>

#include "wrapper.h"

#define OWN WEAK HIDDEN

extern char __dso_handle HIDDEN;
extern void *__jitlink_dlopen(const void *, const char *, int, bool);
extern void *__jitlink_dlsym(const void *, void *, const char *, bool);
extern void *__jitlink_dlvsym(const void *, void *, const char *, const char *);
extern int __jitlink_dlclose(const void *, void *, bool);
extern int __jitlink_dlupdate(const void *, void *);
extern int __jitlink_dladdr(const void *, const void *, Dl_info *);
extern char *__jitlink_dlerror(void);
/* The process's own. */
extern char *__jitlink_process_dlerror(void);

OWN void *jit_dlopen(const char *name, int mode) {
  return __jitlink_dlopen(&__dso_handle, name, mode, true);
}

OWN void *jit_dlsym(void *handle, const char *name) {
  return __jitlink_dlsym(&__dso_handle, handle, name, true);
}

OWN int jit_dlclose(void *handle) { return __jitlink_dlclose(&__dso_handle, handle, true); }

OWN int jit_dlupdate(void *handle) { return __jitlink_dlupdate(&__dso_handle, handle); }

OWN char *jit_dlerror(void) { return __jitlink_dlerror(); }

OWN void *dlopen(const char *name, int mode) {
  return __jitlink_dlopen(&__dso_handle, name, mode, false);
}

OWN void *dlsym(void *restrict handle, const char *restrict name) {
  return __jitlink_dlsym(&__dso_handle, handle, name, false);
}

OWN void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version) {
  return __jitlink_dlvsym(&__dso_handle, handle, name, version);
}

OWN int dlclose(void *handle) { return __jitlink_dlclose(&__dso_handle, handle, false); }

OWN char *dlerror(void) {
  char *message = __jitlink_dlerror();
  return message ? message : __jitlink_process_dlerror();
}

OWN int dladdr(const void *address, Dl_info *information) {
  return __jitlink_dladdr(&__dso_handle, address, information);
}
