/* dlopen and its kin for code that was linked in memory.
 *
 * The first argument of every function is the handle of the caller's dylib, which identifies the
 * session; the per-dylib functions in dylib_dlfcn.c pass it. Calls with names and handles of
 * JITDylibs go to the session. All others go to the process's own functions, except those of
 * `jit_dlopen` and its kin, which are for JITDylibs only.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "dylibs.h"

/* Tags: their addresses identify the functions to the session. */
char __jitlink_dlopen_tag;
char __jitlink_dlsym_tag;
char __jitlink_dlclose_tag;
char __jitlink_dlupdate_tag;
char __jitlink_dladdr_tag;

/* Error messages, one for each thread */

struct message {
  char *pending; /* to be returned by the next dlerror */
  char *fetched; /* returned by the last dlerror, valid until the next */
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

/* Takes ownership of a text from malloc; null is success. */
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

/* Of callbacks.c, which is only in executors that are other processes. */
extern uintptr_t __jitlink_this_call(void) WEAK;

static struct buffer packed(const void *handle, const void *value, const char *text, int mode) {
  size_t length = text ? strlen(text) : 0;
  struct buffer buffer = {malloc(40 + length), 0};
  if (!buffer.data)
    abort();
  char *end = sps_put_u64(buffer.data, (uintptr_t)handle);
  end = sps_put_u64(end, (uintptr_t)value);
  end = sps_put_text(end, text ? text : "", length);
  end = sps_put_u64(end, (uint64_t)(int64_t)mode);
  end = sps_put_u64(end, __jitlink_this_call ? __jitlink_this_call() : 0);
  buffer.size = (size_t)(end - buffer.data);
  return buffer;
}

/* Expected<Addr>(Addr caller, Addr value, String text, UInt64 mode, UInt64 number), of any tag;
   the number is that of the controller's call that the thread is in.
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
  dlerror(); /* discards an older message of the process */
  struct buffer arguments = packed(handle, value, text, mode);
  wrapper_result result = dispatch(context, tag, arguments.data, arguments.size);
  free(arguments.data);
  if (!result.size) {
    set_message(strdup(result.value.pointer ? result.value.pointer : "no answer"));
    sps_free(&result);
    return false;
  }
  sps_reader reader = sps_read(sps_bytes(&result), result.size);
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
  sps_free(&result);
  set_message(text_of_error);
  return is_success;
}

static bool is_dylib(const void *handle) {
  lock_dylibs();
  bool found = find_dylib(handle) != 0;
  unlock_dylibs();
  return found;
}

/* Called by dylib_dlfcn.c; `only` for the names that begin with jit_. */

/* A flag of the mode: a name that no JITDylib has is an error. */
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

#pragma weak dlvsym /* not every C library has it */

void *__jitlink_dlvsym(const void *caller, void *handle, const char *name, const char *version) {
  bool is_pseudo = handle == RTLD_DEFAULT || handle == RTLD_NEXT;
  if (!is_pseudo && !is_dylib(handle) && dlvsym) {
    set_message(0);
    return dlvsym(handle, name, version);
  }
  size_t length = strlen(name), size = length + strlen(version) + 2;
  char *versioned = malloc(size);
  if (!versioned)
    abort();
  memcpy(versioned, name, length);
  versioned[length] = '@';
  strcpy(versioned + length + 1, version);
  void *address = __jitlink_dlsym(caller, handle, versioned, false);
  free(versioned);
  return address;
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

/* dladdr */

/* Texts that callers of dladdr keep: interned, never freed. */
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

/* The session returns the address of serialized information in memory of malloc,
   Tuple<UInt64 size, Addr base, String dylib, Addr symbol, String name>; zero if the address is
   in none of its JITDylibs. */
int __jitlink_dladdr(const void *caller, const void *address, Dl_info *information) {
  uintptr_t answer = 0;
  if (dladdr(address, information))
    return 1;
  if (!call_session(caller, &__jitlink_dladdr_tag, address, 0, 0, &answer) || !answer) {
    set_message(0); /* dladdr sets no error */
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

/* Calls into sessions of this process */

/* Handles the calls into all sessions. It stores the result through its last argument, because
   callbacks of ctypes cannot return a struct. */
static void (*callback)(void *context, const void *tag, const char *data, size_t size,
                        wrapper_result *result);

/* Error(Addr callback) */
wrapper_result __jitlink_set_callback(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  callback = (void (*)(void *, const void *, const char *, size_t, wrapper_result *))sps_address(
      &reader);
  return reader.failed ? sps_malformed() : sps_zero_byte();
}

extern int Py_IsInitialized(void) WEAK;

/* A dispatch function. At exit it may be called when there is no interpreter any more. */
wrapper_result __jitlink_dispatch(void *context, const void *tag, const char *data, size_t size) {
  wrapper_result result = {{0}, 0};
  if (Py_IsInitialized && !Py_IsInitialized())
    return sps_out_of_band("the session has ended with its interpreter");
  callback(context, tag, data, size, &result);
  return result;
}
