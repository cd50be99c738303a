/* Unwind information: `.eh_frame` sections are made known to the unwinders of the process.
 *
 * libgcc's __register_frame takes a whole section that ends with a zero word. The function of that
 * name in LLVM's libunwind takes one record only; for sections it has
 * __unw_add_dynamic_eh_frame_section. A process may have both libraries, and what throws may use
 * either, so a section is registered with each that there is.
 */
#include <dlfcn.h>

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
  static int known; /* 0: not yet. Threads that find out at once find out the same. */
  if (!known) {
    bool is_llvm = __unw_add_dynamic_eh_frame_section &&
                   library_of((const void *)__register_frame) ==
                       library_of((const void *)__unw_add_dynamic_eh_frame_section);
    known = __register_frame && __deregister_frame && !is_llvm ? 1 : -1;
  }
  return known > 0;
}

/* Error(Addr section) */
wrapper_result __jitlink_register_frames(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *section = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
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
  return sps_zero_byte();
}

/* Error(Addr function, Addr section): the same for an unwinder that was linked in memory itself. */
wrapper_result __jitlink_call_with_frames(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void (*function)(const void *) = (void (*)(const void *))sps_address(&reader);
  void *section = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
  function(section);
  return sps_zero_byte();
}
