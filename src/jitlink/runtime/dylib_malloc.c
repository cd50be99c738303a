/* Functions of the C library that allocate for their caller, or take over what the caller has
 * allocated: per-dylib functions of a dylib that defines malloc and free itself.
 *
 * As in a static program, where the C library calls the program's malloc, callers free the results
 * with their own free. Here the C library runs already, with an allocator of its own. So these call
 * the process's functions, named __jitlink_process_, and move the results.
 */
#define __NO_INLINE__ 1 /* the headers would define some of the functions themselves */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "wrapper.h"

#define OWN WEAK HIDDEN
#define PROCESS(type, name, ...) extern type __jitlink_process_##name(__VA_ARGS__)

PROCESS(void, free, void *);
PROCESS(int, vasprintf, char **, const char *, va_list);
PROCESS(int, __vasprintf_chk, char **, int, const char *, va_list);
PROCESS(ssize_t, __getdelim, char **, size_t *, int, FILE *);
PROCESS(char *, realpath, const char *, char *);
PROCESS(char *, getcwd, char *, size_t);
PROCESS(char *, get_current_dir_name, void);
PROCESS(char *, tempnam, const char *, const char *);
PROCESS(char **, backtrace_symbols, void *const *, int);

typedef int entry_filter(const struct dirent *);
typedef int entry_order(const struct dirent **, const struct dirent **);
PROCESS(int, scandir, const char *, struct dirent ***, entry_filter *, entry_order *);
PROCESS(int, scandirat, int, const char *, struct dirent ***, entry_filter *, entry_order *);

/* Moves memory of the process to memory of the program of at least `room` bytes. */
static void *moved_to(void *theirs, size_t size, size_t room) {
  int error = errno;
  void *ours = malloc(room);
  if (ours) {
    memcpy(ours, theirs, size);
    errno = error;
  } else {
    errno = ENOMEM;
  }
  __jitlink_process_free(theirs);
  return ours;
}

static void *moved(void *theirs, size_t size) { return moved_to(theirs, size, size); }

static char *moved_text(char *theirs) { return theirs ? moved(theirs, strlen(theirs) + 1) : 0; }

/* Strings. */

static void *copied(const void *text, size_t size, size_t terminator) {
  char *copy = malloc(size + terminator);
  if (copy) {
    memcpy(copy, text, size);
    memset(copy + size, 0, terminator);
  } else {
    errno = ENOMEM;
  }
  return copy;
}

OWN char *strdup(const char *text) { return copied(text, strlen(text), 1); }

OWN char *__strdup(const char *text) { return copied(text, strlen(text), 1); }

OWN char *strndup(const char *text, size_t most) { return copied(text, strnlen(text, most), 1); }

OWN char *__strndup(const char *text, size_t most) { return copied(text, strnlen(text, most), 1); }

OWN wchar_t *wcsdup(const wchar_t *text) {
  return copied(text, wcslen(text) * sizeof(wchar_t), sizeof(wchar_t));
}

/* Formatted output. */

static int moved_output(char **result, char *theirs, int length) {
  if (length >= 0) {
    theirs = moved(theirs, (size_t)length + 1);
    if (!theirs)
      return -1;
    *result = theirs;
  }
  return length;
}

OWN int vasprintf(char **restrict result, const char *restrict format, va_list arguments) {
  char *theirs = 0;
  int length = __jitlink_process_vasprintf(&theirs, format, arguments);
  return moved_output(result, theirs, length);
}

OWN int __vasprintf_chk(char **result, int flag, const char *format, va_list arguments) {
  char *theirs = 0;
  int length = __jitlink_process___vasprintf_chk(&theirs, flag, format, arguments);
  return moved_output(result, theirs, length);
}

#define FORWARD(call)                                                                              \
  va_list arguments;                                                                               \
  va_start(arguments, format);                                                                     \
  int result = call;                                                                               \
  va_end(arguments);                                                                               \
  return result

OWN int asprintf(char **restrict text, const char *restrict format, ...) {
  FORWARD(vasprintf(text, format, arguments));
}

OWN int __asprintf(char **text, const char *format, ...) {
  FORWARD(vasprintf(text, format, arguments));
}

OWN int __asprintf_chk(char **text, int flag, const char *format, ...) {
  FORWARD(__vasprintf_chk(text, flag, format, arguments));
}

/* Lines. */

enum { FIRST_LINE = 120 }; /* as in glibc */

/* Gives a line buffer at least some size; what it holds is not kept. */
static bool enlarge(char **line, size_t *size, size_t wanted) {
  if (*line && *size >= wanted)
    return true;
  if (wanted < 2 * *size)
    wanted = 2 * *size;
  if (wanted < FIRST_LINE)
    wanted = FIRST_LINE;
  char *larger = malloc(wanted);
  if (!larger) {
    errno = ENOMEM;
    return false;
  }
  free(*line);
  *line = larger;
  *size = wanted;
  return true;
}

OWN ssize_t __getdelim(char **line, size_t *size, int delimiter, FILE *stream) {
  if (!line || !size) {
    errno = EINVAL;
    return -1;
  }
  if (!*line)
    *size = 0;
  if (!enlarge(line, size, 1))
    return -1;
  char *theirs = 0;
  size_t room = 0;
  ssize_t length = __jitlink_process___getdelim(&theirs, &room, delimiter, stream);
  int error = errno;
  if (length >= 0) {
    if (enlarge(line, size, (size_t)length + 1)) {
      memcpy(*line, theirs, (size_t)length + 1);
    } else {
      length = -1;
      error = ENOMEM;
    }
  }
  __jitlink_process_free(theirs);
  errno = error;
  return length;
}

OWN ssize_t getdelim(char **restrict line, size_t *restrict size, int delimiter,
                     FILE *restrict stream) {
  return __getdelim(line, size, delimiter, stream);
}

OWN ssize_t getline(char **restrict line, size_t *restrict size, FILE *restrict stream) {
  return __getdelim(line, size, '\n', stream);
}

/* Paths. */

OWN char *realpath(const char *restrict path, char *restrict buffer) {
  char *result = __jitlink_process_realpath(path, buffer);
  return buffer ? result : moved_text(result);
}

OWN char *canonicalize_file_name(const char *path) { return realpath(path, 0); }

OWN char *getcwd(char *buffer, size_t size) {
  char *result = __jitlink_process_getcwd(buffer, size);
  if (buffer || !result)
    return result;
  size_t length = strlen(result) + 1;
  return moved_to(result, length, size > length ? size : length);
}

OWN char *get_current_dir_name(void) {
  return moved_text(__jitlink_process_get_current_dir_name());
}

OWN char *tempnam(const char *directory, const char *prefix) {
  return moved_text(__jitlink_process_tempnam(directory, prefix));
}

/* Directories. */

static int moved_entries(struct dirent ***result, struct dirent **theirs, int count) {
  if (count < 0)
    return count;
  int done = 0;
  struct dirent **ours = malloc((count ? (size_t)count : 1) * sizeof *ours);
  if (ours)
    while (done < count && (ours[done] = copied(theirs[done], theirs[done]->d_reclen, 0)))
      ++done;
  for (int each = 0; each < count; ++each)
    __jitlink_process_free(theirs[each]);
  __jitlink_process_free(theirs);
  if (ours && done == count) {
    *result = ours;
    return count;
  }
  while (done)
    free(ours[--done]);
  free(ours);
  errno = ENOMEM;
  return -1;
}

OWN int scandir(const char *restrict path, struct dirent ***restrict result, entry_filter *filter,
                entry_order *order) {
  struct dirent **theirs = 0;
  int count = __jitlink_process_scandir(path, &theirs, filter, order);
  return moved_entries(result, theirs, count);
}

OWN int scandirat(int directory, const char *restrict path, struct dirent ***restrict result,
                  entry_filter *filter, entry_order *order) {
  struct dirent **theirs = 0;
  int count = __jitlink_process_scandirat(directory, path, &theirs, filter, order);
  return moved_entries(result, theirs, count);
}

/* On 64-bit machines entries have one layout. */
_Static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "layout of directory entries");
OWN int scandir64(const char *, struct dirent64 ***, int (*)(const struct dirent64 *),
                  int (*)(const struct dirent64 **, const struct dirent64 **))
    __attribute__((alias("scandir")));
OWN int scandirat64(int, const char *, struct dirent64 ***, int (*)(const struct dirent64 *),
                    int (*)(const struct dirent64 **, const struct dirent64 **))
    __attribute__((alias("scandirat")));

/* Backtraces: one block, of pointers and the texts that they lead to. */

OWN char **backtrace_symbols(void *const *addresses, int count) {
  char **theirs = __jitlink_process_backtrace_symbols(addresses, count);
  if (!theirs)
    return 0;
  const char *end = (const char *)(theirs + count);
  for (int each = 0; each < count; ++each) {
    const char *after = theirs[each] + strlen(theirs[each]) + 1;
    if (after > end)
      end = after;
  }
  uintptr_t start = (uintptr_t)theirs;
  char **ours = moved(theirs, (size_t)((uintptr_t)end - start));
  for (int each = 0; ours && each < count; ++each)
    ours[each] = (char *)ours + ((uintptr_t)ours[each] - start);
  return ours;
}
