/* Pages and their protections, by the bits of RemoteAllocGroup. */
#ifndef JITLINK_PROTECTIONS_H
#define JITLINK_PROTECTIONS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, EXEC = 4 };

static inline uint64_t page_size(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

static inline uint64_t round_to_pages(uint64_t size) {
  uint64_t mask = page_size() - 1;
  return size > UINT64_MAX - mask ? 0 : (size + mask) & ~mask;
}

/* The protection of pages; -1 sets errno: no page becomes writable and executable. */
static inline int protection_of(unsigned group) {
  if ((group & WRITE) && (group & EXEC)) {
    errno = EACCES;
    return -1;
  }
  return (group & READ ? PROT_READ : 0) | (group & WRITE ? PROT_WRITE : 0) |
         (group & EXEC ? PROT_EXEC : 0);
}

/* Protects the pages from an address on. */
static inline bool protect(uint64_t start, uint64_t size, unsigned group) {
  int prot = protection_of(group);
  return prot >= 0 && !mprotect((void *)(uintptr_t)start, round_to_pages(size), prot);
}

#endif
