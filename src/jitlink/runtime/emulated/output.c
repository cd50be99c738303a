/* Output of stdio.h: standard output is kept until a line ends, standard error is not kept.
 *
 * There are no files: stdin is always at its end.
 */
#include "library.h"

struct jitlink_file {
  int descriptor;
  size_t used;
  char data[256];
};

static struct jitlink_file files[3] = {{0, 0, {0}}, {1, 0, {0}}, {2, 0, {0}}};
FILE *stdin = &files[0], *stdout = &files[1], *stderr = &files[2];

static int flush(FILE *file) {
  size_t used = file->used;
  file->used = 0;
  if (used)
    __jitlink_host_write(file->descriptor, file->data, used);
  return 0;
}

int fflush(FILE *file) { return flush(file ? file : stdout); }

/* The host calls it when a program has ended. */
static void flush_at_end(void) { flush(stdout); }

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  size_t total = size * count;
  const char *text = data;
  if (!file->descriptor || !total)
    return 0;
  static int is_registered;
  if (!is_registered) {
    is_registered = 1;
    __jitlink_host_at_end(flush_at_end);
  }
  int ends_line = 0;
  for (size_t place = 0; place < total; ++place) {
    if (file->used == sizeof file->data)
      flush(file);
    file->data[file->used++] = text[place];
    ends_line |= text[place] == '\n';
  }
  if (ends_line || file == stderr)
    flush(file);
  return count;
}

/* As of unistd.h: what is kept comes out later. */
ptrdiff_t write(int descriptor, const void *data, size_t size) {
  if (descriptor != 1 && descriptor != 2)
    return -1;
  return __jitlink_host_write(descriptor, data, size);
}

int fputc(int character, FILE *file) {
  char byte = (char)character;
  return fwrite(&byte, 1, 1, file) == 1 ? (unsigned char)byte : -1;
}

int putc(int character, FILE *file) { return fputc(character, file); }

int putchar(int character) { return fputc(character, stdout); }

int fputs(const char *text, FILE *file) {
  fwrite(text, 1, strlen(text), file);
  return 0;
}

int puts(const char *text) {
  fputs(text, stdout);
  return fputc('\n', stdout) < 0 ? -1 : 0;
}

int fgetc(FILE *file) {
  (void)file;
  return -1;
}

int getchar(void) { return -1; }

char *fgets(char *data, int size, FILE *file) {
  (void)data, (void)size, (void)file;
  return 0;
}

int feof(FILE *file) { return file == stdin; }

int ferror(FILE *file) {
  (void)file;
  return 0;
}

int setvbuf(FILE *file, char *data, int mode, size_t size) {
  (void)file, (void)data, (void)mode, (void)size;
  return 0;
}

void setbuf(FILE *file, char *data) { (void)file, (void)data; }

void perror(const char *text) {
  fputs(text, stderr);
  fputs(": error\n", stderr);
}
