/* A shell for SQLite: runs a script on a database file, then 8 threads add rows to it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct sqlite3 sqlite3;
int sqlite3_open(const char *name, sqlite3 **);
int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
int sqlite3_busy_timeout(sqlite3 *, int milliseconds);
int sqlite3_close(sqlite3 *);
void sqlite3_free(void *);

static const char *path;

static int print_row(void *unused, int count, char **values, char **names) {
  (void)unused, (void)names;
  for (int i = 0; i < count; i++)
    printf("%s%s", i ? "|" : "", values[i] ? values[i] : "");
  putchar('\n');
  return 0;
}

static int execute(sqlite3 *database, const char *sql) {
  char *message = 0;
  int failed = sqlite3_exec(database, sql, print_row, 0, &message);
  if (failed)
    fprintf(stderr, "Error: %s\n", message);
  sqlite3_free(message);
  return failed;
}

static void *add_rows(void *number) {
  sqlite3 *database;
  char sql[100];
  long failed = sqlite3_open(path, &database);
  sqlite3_busy_timeout(database, 60000);
  for (int i = 0; i < 5; i++) {
    snprintf(sql, sizeof sql, "insert into log values (%ld, %d)", (long)number, i);
    failed += execute(database, sql);
  }
  return (void *)(failed + sqlite3_close(database));
}

int main(int argc, char **argv) {
  static char script[1 << 16];
  sqlite3 *database;
  pthread_t threads[8];
  FILE *file = argc == 3 ? fopen(argv[2], "r") : 0;
  path = argv[1];
  if (!file || sqlite3_open(path, &database))
    return 2;
  script[fread(script, 1, sizeof script - 1, file)] = 0;
  fclose(file);
  int status = execute(database, script) != 0;
  for (long i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, add_rows, (void *)i);
  for (int i = 0; i < 8; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    status |= failed ? 4 : 0;
  }
  execute(database, "select count(*), sum(thread), sum(step) from log; pragma integrity_check");
  return status | sqlite3_close(database);
}
