/* dlopen and its kin for code that was linked in memory.
 *
 * Every function takes the handle of the caller's dylib first, which tells the session; the
 * per-dylib functions in dylib_dlfcn.c put it there. Names of JITDylibs and their handles go to the
 * session. All else goes to the process's own functions, but only where the plain names were called,
 * not for `jit_dlopen` and its kin, which know JITDylibs only.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "dylibs.h"

/* The session tells calls apart by the addresses of these. */
char __jitlink_dlopen_tag;
char __jitlink_dlsym_tag;
char __jitlink_dlclose_tag;
char __jitlink_dlupdate_tag;
char __jitlink_dladdr_tag;

/* Errors: one message a thread, and whether it is the process's own that counts. */

struct message {
  char *pending; /* to be fetched by dlerror */
  char *fetched; /* stays until the next call */
};

static pthread_key_t key;

static void free_message(void *argument) {
  struct message *message = argument;
  free(message->pending);
  free(message->fetched);
  free(message);
}

static void make_key(void) {
  if (pthread_key_create(&key, free_message))
    abort();
}

static struct message *this_message(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_key);
  struct message *message = pthread_getspecific(key);
  if (!message) {
    message = calloc(1, sizeof *message);
    if (message && pthread_setspecific(key, message)) {
      free(message);
      message = 0;
    }
  }
  return message;
}

/* Takes over a text in memory of malloc; null is success. */
static void set_message(char *text) {
  struct message *message = this_message();
  if (!message) {
    free(text);
    return;
  }
  free(message->pending);
  message->pending = text;
}

/* The process's own message, for callers that have a `dlerror` of their own. */
char *__jitlink_process_dlerror(void) { return dlerror(); }

char *__jitlink_dlerror(void) {
  struct message *message = this_message();
  if (!message || !message->pending)
    return 0;
  free(message->fetched);
  message->fetched = message->pending;
  message->pending = 0;
  return message->fetched;
}

/* Calls into the session */

struct buffer {
  char *data;
  size_t size;
};

static struct buffer packed(const void *handle, const void *value, const char *text, int mode) {
  size_t length = text ? strlen(text) : 0;
  struct buffer buffer = {malloc(32 + length), 0};
  if (!buffer.data)
    abort();
  char *end = sps_put_u64(buffer.data, (uintptr_t)handle);
  end = sps_put_u64(end, (uintptr_t)value);
  end = sps_put_text(end, text ? text : "", length);
  end = sps_put_u64(end, (uint64_t)(int64_t)mode);
  buffer.size = (size_t)(end - buffer.data);
  return buffer;
}

static void release(wrapper_result result) {
  if (result.size > sizeof result.value.bytes || (!result.size && result.value.pointer))
    free(result.value.pointer);
}

/* Expected<Addr>(Addr caller, Addr value, String text, UInt64 mode), of any tag.
   Returns whether it was successful; if not, the error is set. */
static bool call_session(const void *handle, const void *tag, const void *value, const char *text,
                         int mode, uintptr_t *answer) {
  lock_dylibs();
  struct dylib *dylib = find_dylib(handle);
  dispatch_function dispatch = dylib ? dylib->dispatch : 0;
  void *context = dylib ? dylib->context : 0;
  unlock_dylibs();
  if (!dispatch) {
    set_message(strdup("the session of the calling code has ended"));
    return false;
  }
  dlerror(); /* an older message of the process counts no more */
  struct buffer arguments = packed(handle, value, text, mode);
  wrapper_result result = dispatch(context, tag, arguments.data, arguments.size);
  free(arguments.data);
  if (!result.size) {
    set_message(strdup(result.value.pointer ? result.value.pointer : "no answer"));
    release(result);
    return false;
  }
  const char *bytes =
      result.size > sizeof result.value.bytes ? result.value.pointer : result.value.bytes;
  sps_reader reader = sps_read(bytes, result.size);
  bool is_success = sps_bool(&reader);
  char *text_of_error = 0;
  if (is_success)
    *answer = (uintptr_t)sps_u64(&reader);
  else
    text_of_error = sps_string(&reader);
  if (reader.failed) {
    is_success = false;
    free(text_of_error);
    text_of_error = strdup("the session's answer is malformed");
  }
  release(result);
  set_message(text_of_error);
  return is_success;
}

static bool is_dylib(const void *handle) {
  lock_dylibs();
  bool found = find_dylib(handle) != 0;
  unlock_dylibs();
  return found;
}

/* What code calls; `only` is for the names that begin with jit_. */

/* Added to the mode: a name that is no JITDylib's is an error. */
enum { ONLY_JITDYLIBS = 1 << 30 };

void *__jitlink_dlopen(const void *caller, const char *name, int mode, bool only) {
  uintptr_t handle = 0;
  /* Zero: the session has no such JITDylib, so it may be a library. */
  int asked = only ? mode | ONLY_JITDYLIBS : mode & ~ONLY_JITDYLIBS;
  if (!call_session(caller, &__jitlink_dlopen_tag, name, name, asked, &handle))
    return 0;
  return handle || only ? (void *)handle : dlopen(name, mode);
}

void *__jitlink_dlsym(const void *caller, void *handle, const char *name, bool only) {
  uintptr_t address = 0;
  bool is_pseudo = handle == RTLD_DEFAULT || handle == RTLD_NEXT;
  if (!only && !is_pseudo && !is_dylib(handle)) {
    set_message(0);
    return dlsym(handle, name);
  }
  return call_session(caller, &__jitlink_dlsym_tag, handle, name, 0, &address) ? (void *)address
                                                                               : 0;
}

int __jitlink_dlclose(const void *caller, void *handle, bool only) {
  uintptr_t unused;
  if (!only && !is_dylib(handle)) {
    set_message(0);
    return dlclose(handle);
  }
  return call_session(caller, &__jitlink_dlclose_tag, handle, 0, 0, &unused) ? 0 : -1;
}

int __jitlink_dlupdate(const void *caller, void *handle) {
  uintptr_t unused;
  return call_session(caller, &__jitlink_dlupdate_tag, handle, 0, 0, &unused) ? 0 : -1;
}

/* Where an address is */

/* Texts that callers of dladdr keep; each is there once, for ever. */
struct text {
  struct text *next;
  char characters[];
};

static const char *keep_text(const char *characters) {
  static struct text *texts;
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  struct text *text = texts;
  while (text && strcmp(text->characters, characters))
    text = text->next;
  if (!text) {
    text = malloc(sizeof *text + strlen(characters) + 1);
    if (text) {
      strcpy(text->characters, characters);
      text->next = texts;
      texts = text;
    }
  }
  pthread_mutex_unlock(&lock);
  return text ? text->characters : "";
}

/* The session answers with the address of what it has packed in memory of malloc:
   Tuple<UInt64 size, Addr base, String dylib, Addr symbol, String name>; zero if the address is
   not one of its JITDylibs'. */
int __jitlink_dladdr(const void *caller, const void *address, Dl_info *information) {
  uintptr_t answer = 0;
  if (dladdr(address, information))
    return 1;
  if (!call_session(caller, &__jitlink_dladdr_tag, address, 0, 0, &answer) || !answer) {
    set_message(0); /* dladdr leaves none */
    return 0;
  }
  char *data = (char *)answer;
  sps_reader reader = sps_read(data, 8);
  reader = sps_read(data + 8, (size_t)sps_u64(&reader));
  information->dli_fbase = sps_address(&reader);
  char *dylib = sps_string(&reader);
  information->dli_saddr = sps_address(&reader);
  char *symbol = sps_string(&reader);
  free(data);
  bool is_found = dylib && symbol && !reader.failed;
  if (is_found) {
    information->dli_fname = keep_text(dylib);
    information->dli_sname = information->dli_saddr ? keep_text(symbol) : 0;
  }
  free(dylib);
  free(symbol);
  return is_found;
}

/* Calls into a session in this very process */

/* What takes the calls of all sessions; its last argument is where to put the result, because not
   everything that can be called can return a struct. */
static void (*callback)(void *context, const void *tag, const char *data, size_t size,
                        wrapper_result *result);

/* Error(Addr callback) */
wrapper_result __jitlink_set_callback(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  callback = (void (*)(void *, const void *, const char *, size_t, wrapper_result *))sps_address(
      &reader);
  return reader.failed ? sps_malformed() : sps_zero_byte();
}

/* A dispatch function. */
wrapper_result __jitlink_dispatch(void *context, const void *tag, const char *data, size_t size) {
  wrapper_result result = {{0}, 0};
  callback(context, tag, data, size, &result);
  return result;
}
