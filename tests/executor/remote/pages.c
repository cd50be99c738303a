/* A process whose pages are of 64 KiB, as on many AArch64 systems: all calls that depend on the size
 * of a page see and need larger ones than the system has. Preloaded into an executor. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 1 << 16 };

long sysconf(int name) {
  long (*next)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
  return name == _SC_PAGESIZE ? PAGE : next(name);
}

int mprotect(void *start, size_t size, int prot) {
  if ((uintptr_t)start % PAGE) {
    errno = EINVAL;
    return -1;
  }
  return (int)syscall(SYS_mprotect, start, (size + PAGE - 1) & -PAGE, prot);
}

void *mmap(void *start, size_t size, int prot, int flags, int file, off_t offset) {
  size = (size + PAGE - 1) & -(size_t)PAGE;
  if (start)
    return (void *)syscall(SYS_mmap, start, size, prot, flags, file, offset);
  char *place = (char *)syscall(SYS_mmap, 0, size + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED)
    return place;
  char *aligned = (char *)(((uintptr_t)place + PAGE - 1) & -(uintptr_t)PAGE);
  munmap(place, (size_t)(aligned - place));
  munmap(aligned + size, PAGE - (size_t)(aligned - place));
  return (void *)syscall(SYS_mmap, aligned, size, prot, flags | MAP_FIXED, file, offset);
}
