/* scanf and its kin for a dylib that defines malloc and free itself; see dylib_malloc.c.
 *
 * Conversions with the modifier m allocate what they read. All arguments of a format are pointers,
 * so what was stored is found without knowing their types.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "wrapper.h"

#define OWN WEAK HIDDEN

/* Not from stdio.h, which gives some of these functions other names. */
typedef struct _IO_FILE FILE;
extern FILE *stdin;
enum { END = -1 };

extern void __jitlink_process_free(void *);
extern size_t __jitlink_process_malloc_usable_size(void *);

/* One conversion; `argument` is 0 for the next one of the list. */
struct conversion {
  size_t argument, width;
  bool is_suppressed, allocates, is_wide;
  char kind;
};

static size_t number(const char **text) {
  size_t value = 0;
  while (**text >= '0' && **text <= '9')
    value = 10 * value + (size_t)(*(*text)++ - '0');
  return value;
}

/* After the set of a conversion such as %[^]a-z]. */
static const char *after_set(const char *text) {
  if (*text == '^')
    ++text;
  if (*text == ']')
    ++text;
  while (*text && *text != ']')
    ++text;
  return *text ? text + 1 : text;
}

/* Reads what follows a percent sign; `a` modifies strings, and is no conversion of its own, in the
   functions that C99 has not renamed. */
static const char *read_conversion(const char *text, bool a_modifies, struct conversion *found) {
  memset(found, 0, sizeof *found);
  const char *start = text;
  size_t first = number(&text);
  if (*text == '$' && text > start) {
    found->argument = first;
    ++text;
  } else {
    text = start;
  }
  for (; *text == '*' || *text == '\'' || *text == 'I'; ++text)
    found->is_suppressed |= *text == '*';
  found->width = number(&text);
  if (*text == 'm' || (a_modifies && *text == 'a' && text[1] && strchr("sS[", text[1]))) {
    found->allocates = true;
    ++text;
  }
  for (; *text && strchr("hlLqjzt", *text); ++text)
    found->is_wide |= *text == 'l';
  found->kind = *text;
  found->is_wide |= *text == 'S' || *text == 'C';
  if (*text)
    ++text;
  return found->kind == '[' ? after_set(text) : text;
}

static void *argument_at(va_list arguments, size_t position) {
  va_list copy;
  va_copy(copy, arguments);
  void *argument = 0;
  for (size_t each = 0; each <= position; ++each)
    argument = va_arg(copy, void *);
  va_end(copy);
  return argument;
}

static bool move_read(void **place, const struct conversion *conversion) {
  size_t unit = conversion->is_wide ? sizeof(wchar_t) : 1, count = conversion->width;
  void *theirs = *place;
  if (conversion->kind != 'c' && conversion->kind != 'C') {
    count = 1 + (conversion->is_wide ? wcslen(theirs) : strlen(theirs));
  } else {
    /* At the end of the input, fewer characters are stored than the width says. */
    size_t most = __jitlink_process_malloc_usable_size(theirs) / unit;
    if (!count)
      count = 1;
    if (count > most)
      count = most;
  }
  *place = malloc(count * unit);
  if (*place)
    memcpy(*place, theirs, count * unit);
  __jitlink_process_free(theirs);
  return *place;
}

/* Moves what the first `count` conversions have stored to memory of the program. */
static int moved_results(const char *format, va_list arguments, int count, bool a_modifies) {
  size_t position = 0;
  int left = count;
  bool is_complete = true;
  while (left > 0 && (format = strchr(format, '%'))) {
    struct conversion found;
    format = read_conversion(format + 1, a_modifies, &found);
    if (!found.kind)
      break;
    if (found.kind == '%' || found.is_suppressed)
      continue;
    size_t argument = found.argument ? found.argument - 1 : position++;
    if (found.kind == 'n')
      continue;
    --left;
    if (found.allocates)
      is_complete &= move_read(argument_at(arguments, argument), &found);
  }
  return is_complete ? count : END;
}

/* Functions with a prefix: those of C99 and later have one in the library. */
#define FUNCTIONS(prefix, a_modifies)                                                              \
  extern int __jitlink_process_##prefix##vfscanf(FILE *, const char *, va_list);                   \
  extern int __jitlink_process_##prefix##vsscanf(const char *, const char *, va_list);             \
  OWN int prefix##vfscanf(FILE *restrict stream, const char *restrict format, va_list arguments) { \
    va_list copy;                                                                                  \
    va_copy(copy, arguments);                                                                      \
    int count = __jitlink_process_##prefix##vfscanf(stream, format, arguments);                    \
    count = moved_results(format, copy, count, a_modifies);                                        \
    va_end(copy);                                                                                  \
    return count;                                                                                  \
  }                                                                                                \
  OWN int prefix##vsscanf(const char *restrict text, const char *restrict format,                  \
                          va_list arguments) {                                                     \
    va_list copy;                                                                                  \
    va_copy(copy, arguments);                                                                      \
    int count = __jitlink_process_##prefix##vsscanf(text, format, arguments);                      \
    count = moved_results(format, copy, count, a_modifies);                                        \
    va_end(copy);                                                                                  \
    return count;                                                                                  \
  }                                                                                                \
  OWN int prefix##vscanf(const char *restrict format, va_list arguments) {                         \
    return prefix##vfscanf(stdin, format, arguments);                                              \
  }                                                                                                \
  OWN int prefix##fscanf(FILE *restrict stream, const char *restrict format, ...) {                \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    int count = prefix##vfscanf(stream, format, arguments);                                        \
    va_end(arguments);                                                                             \
    return count;                                                                                  \
  }                                                                                                \
  OWN int prefix##sscanf(const char *restrict text, const char *restrict format, ...) {            \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    int count = prefix##vsscanf(text, format, arguments);                                          \
    va_end(arguments);                                                                             \
    return count;                                                                                  \
  }                                                                                                \
  OWN int prefix##scanf(const char *restrict format, ...) {                                        \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    int count = prefix##vfscanf(stdin, format, arguments);                                         \
    va_end(arguments);                                                                             \
    return count;                                                                                  \
  }

FUNCTIONS(, true)
FUNCTIONS(__isoc99_, false)
FUNCTIONS(__isoc23_, false)
