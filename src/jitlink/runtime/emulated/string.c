/* Functions of string.h for strings. */
#include "library.h"

size_t strlen(const char *text) {
  const char *end = text;
  while (*end)
    ++end;
  return (size_t)(end - text);
}

size_t strnlen(const char *text, size_t most) {
  size_t size = 0;
  while (size < most && text[size])
    ++size;
  return size;
}

char *strcpy(char *restrict to, const char *restrict from) {
  memcpy(to, from, strlen(from) + 1);
  return to;
}

char *stpcpy(char *restrict to, const char *restrict from) {
  size_t size = strlen(from);
  memcpy(to, from, size + 1);
  return to + size;
}

char *strncpy(char *restrict to, const char *restrict from, size_t size) {
  size_t used = strnlen(from, size);
  memcpy(to, from, used);
  memset(to + used, 0, size - used);
  return to;
}

char *strcat(char *restrict to, const char *restrict from) {
  strcpy(to + strlen(to), from);
  return to;
}

char *strncat(char *restrict to, const char *restrict from, size_t size) {
  char *end = to + strlen(to);
  size_t used = strnlen(from, size);
  memcpy(end, from, used);
  end[used] = 0;
  return to;
}

int strcmp(const char *left, const char *right) {
  while (*left && *left == *right)
    ++left, ++right;
  return (unsigned char)*left - (unsigned char)*right;
}

int strncmp(const char *left, const char *right, size_t size) {
  for (; size; --size, ++left, ++right)
    if (*left != *right || !*left)
      return (unsigned char)*left - (unsigned char)*right;
  return 0;
}

char *strchr(const char *text, int character) {
  for (;; ++text) {
    if (*text == (char)character)
      return (char *)text;
    if (!*text)
      return 0;
  }
}

char *strrchr(const char *text, int character) {
  const char *found = 0;
  for (;; ++text) {
    if (*text == (char)character)
      found = text;
    if (!*text)
      return (char *)found;
  }
}

char *strstr(const char *text, const char *part) {
  size_t size = strlen(part);
  for (;; ++text) {
    if (!strncmp(text, part, size))
      return (char *)text;
    if (!*text)
      return 0;
  }
}

size_t strspn(const char *text, const char *accepted) {
  size_t size = 0;
  while (text[size] && strchr(accepted, text[size]))
    ++size;
  return size;
}

size_t strcspn(const char *text, const char *refused) {
  size_t size = 0;
  while (text[size] && !strchr(refused, text[size]))
    ++size;
  return size;
}

char *strpbrk(const char *text, const char *accepted) {
  text += strcspn(text, accepted);
  return *text ? (char *)text : 0;
}

char *strtok_r(char *restrict text, const char *restrict separators, char **restrict rest) {
  if (!text)
    text = *rest;
  text += strspn(text, separators);
  if (!*text) {
    *rest = text;
    return 0;
  }
  char *end = text + strcspn(text, separators);
  *rest = *end ? end + 1 : end;
  *end = 0;
  return text;
}

char *strtok(char *restrict text, const char *restrict separators) {
  static char *rest;
  return strtok_r(text, separators, &rest);
}

char *strdup(const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = malloc(size);
  return copy ? memcpy(copy, text, size) : 0;
}
