/* Functions that register exit handlers: each JITDylib has its own, which pass its handle. */
extern char __dso_handle __attribute__((visibility("hidden")));
int __cxa_atexit(void (*function)(void *), void *argument, void *handle);

#define OWN __attribute__((weak, visibility("hidden")))

OWN int atexit(void (*function)(void)) {
  return __cxa_atexit((void (*)(void *))function, 0, &__dso_handle);
}
