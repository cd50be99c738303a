/* Unwind information: `.eh_frame` sections are registered with the unwinders of the process.
 *
 * libgcc's __register_frame takes a whole section that ends with a zero word. The function of that
 * name in LLVM's libunwind takes one record only; for sections it has
 * __unw_add_dynamic_eh_frame_section. A process may have both libraries, and code that
 * throws may use either, so a section is registered with each that is loaded.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "wrapper.h"

extern void __register_frame(const void *) WEAK;
extern void __deregister_frame(const void *) WEAK;
extern void __unw_add_dynamic_eh_frame_section(uintptr_t) WEAK;
extern void __unw_remove_dynamic_eh_frame_section(uintptr_t) WEAK;

static const void *library_of(const void *address) {
  Dl_info information;
  return dladdr(address, &information) ? information.dli_fbase : 0;
}

/* Whether __register_frame is the one that takes sections. */
static bool takes_sections(void) {
  static int known; /* 0: not determined yet. Concurrent threads determine the same. */
  if (!known) {
    bool is_llvm = __unw_add_dynamic_eh_frame_section &&
                   library_of((const void *)__register_frame) ==
                       library_of((const void *)__unw_add_dynamic_eh_frame_section);
    known = __register_frame && __deregister_frame && !is_llvm ? 1 : -1;
  }
  return known > 0;
}

/* Unwinders that were themselves linked in memory, such as that of libgcc_eh.a, get every section,
   whichever is registered first. */

struct section {
  struct section *next;
  const void *start;
};

struct unwinder {
  struct unwinder *next;
  void (*add)(const void *), (*remove)(const void *);
};

enum { BUCKETS = 4096 };
static struct section *sections[BUCKETS];
static struct unwinder *unwinders;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct section **bucket_of(const void *start) {
  uintptr_t number = (uintptr_t)start;
  return &sections[(number >> 3 ^ number >> 12 ^ number >> 21) % BUCKETS];
}

static bool note_section(const void *start) {
  struct section *section = malloc(sizeof *section);
  if (!section)
    return false;
  section->start = start;
  pthread_mutex_lock(&lock);
  section->next = *bucket_of(start);
  *bucket_of(start) = section;
  for (struct unwinder *each = unwinders; each; each = each->next)
    each->add(start);
  pthread_mutex_unlock(&lock);
  return true;
}

static void forget_section(const void *start) {
  pthread_mutex_lock(&lock);
  struct section **place = bucket_of(start), *section;
  while ((section = *place) && section->start != start)
    place = &section->next;
  if (section) {
    for (struct unwinder *each = unwinders; each; each = each->next)
      each->remove(start);
    *place = section->next;
  }
  pthread_mutex_unlock(&lock);
  free(section);
}

/* Error(Addr section) */
wrapper_result __jitlink_register_frames(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *section = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
  if (!note_section(section))
    return sps_failure("out of memory");
  if (takes_sections())
    __register_frame(section);
  if (__unw_add_dynamic_eh_frame_section)
    __unw_add_dynamic_eh_frame_section((uintptr_t)section);
  return sps_zero_byte();
}

/* Error(Addr section) */
wrapper_result __jitlink_deregister_frames(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *section = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
  if (__unw_remove_dynamic_eh_frame_section)
    __unw_remove_dynamic_eh_frame_section((uintptr_t)section);
  if (takes_sections())
    __deregister_frame(section);
  forget_section(section);
  return sps_zero_byte();
}

/* Error(Addr add, Addr remove): functions that take a section. */
wrapper_result __jitlink_add_unwinder(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  struct unwinder *unwinder = malloc(sizeof *unwinder);
  if (!unwinder)
    return sps_failure("out of memory");
  unwinder->add = (void (*)(const void *))sps_address(&reader);
  unwinder->remove = (void (*)(const void *))sps_address(&reader);
  if (reader.failed) {
    free(unwinder);
    return sps_malformed();
  }
  pthread_mutex_lock(&lock);
  for (size_t bucket = 0; bucket < BUCKETS; ++bucket)
    for (struct section *each = sections[bucket]; each; each = each->next)
      unwinder->add(each->start);
  unwinder->next = unwinders;
  unwinders = unwinder;
  pthread_mutex_unlock(&lock);
  return sps_zero_byte();
}

/* Error(Addr add, Addr remove): its memory is about to be deallocated, with all its tables. */
wrapper_result __jitlink_remove_unwinder(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *add = sps_address(&reader);
  pthread_mutex_lock(&lock);
  struct unwinder **place = &unwinders, *unwinder;
  while ((unwinder = *place) && (void *)unwinder->add != add)
    place = &unwinder->next;
  if (unwinder)
    *place = unwinder->next;
  pthread_mutex_unlock(&lock);
  free(unwinder);
  return unwinder ? sps_zero_byte() : sps_failure("no such unwinder");
}
