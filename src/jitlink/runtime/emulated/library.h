/* The C library of emulated machines: what its sources share.
 *
 * Functions that begin with __jitlink_host_ are implemented in Python. They take integers and
 * pointers only, which all calling conventions pass alike.
 */
#ifndef JITLINK_LIBRARY_H
#define JITLINK_LIBRARY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

long __jitlink_host_write(int descriptor, const void *data, size_t size);
_Noreturn void __jitlink_host_exit(int status);
_Noreturn void __jitlink_host_abort(void);
void __jitlink_host_at_end(void (*function)(void));
void *__jitlink_host_heap(size_t *size);
int __jitlink_host_format(char *out, size_t capacity, size_t start, const char *conversion,
                          const double *value);
void __jitlink_host_narrow(const void *quadruple, double *value);
size_t __jitlink_host_parse(const char *text, double *value);

typedef struct jitlink_file FILE;
extern FILE *stdin, *stdout, *stderr;

void *memchr(const void *data, int byte, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *data, int byte, size_t size);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t most);
char *strchr(const char *text, int character);
void *malloc(size_t size);
void free(void *data);
int fflush(FILE *file);
size_t fwrite(const void *data, size_t size, size_t count, FILE *file);
int vfprintf(FILE *file, const char *format, va_list arguments);
int vsnprintf(char *out, size_t size, const char *format, va_list arguments);

#endif
