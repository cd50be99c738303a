/* The environment, the standard streams by name, temporary files, the time, the locale.
 *
 * position: independent
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

extern char **environ;

int main(void) {
  char text[64];
  wchar_t wide[16];
  struct tm when;
  time_t moment = 86400 * 365;
  setenv("OF_THE_PROGRAM", "value", 1);
  int found = 0;
  for (char **each = environ; *each; each++)
    found += strcmp(*each, "OF_THE_PROGRAM=value") == 0;
  fprintf(stdout, "%d %s\n", found, getenv("OF_THE_PROGRAM"));
  FILE *file = tmpfile();
  fprintf(file, "%d %s\n", 12, "words");
  rewind(file);
  int number;
  int fields = fscanf(file, "%d %63s", &number, text);
  fclose(file);
  fprintf(stderr, "%d %d %s\n", fields, number, text);
  gmtime_r(&moment, &when);
  strftime(text, sizeof text, "%Y-%m-%d", &when);
  puts(text);
  printf("%s\n", setlocale(LC_ALL, "C.UTF-8"));
  printf("%d\n", (int)mbstowcs(wide, "\xc3\xa4\xe2\x82\xac", 16));
  printf("%x %x\n", (unsigned)wide[0], (unsigned)wide[1]);
  return fgetc(stdin) == EOF ? 4 : 5;
}
