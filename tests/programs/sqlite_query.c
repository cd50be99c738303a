/* Runs SQL on a new database in memory and prints each row: values with | in between. */
#include <stdio.h>

typedef struct sqlite3 sqlite3;
int sqlite3_open(const char *name, sqlite3 **database);
int sqlite3_exec(sqlite3 *, const char *sql, int (*row)(void *, int, char **, char **), void *,
                 char **message);
int sqlite3_close(sqlite3 *);
void sqlite3_free(void *);

static int print_row(void *unused, int count, char **values, char **names) {
    (void)unused, (void)names;
    for (int i = 0; i < count; i++)
        printf("%s%s", i ? "|" : "", values[i] ? values[i] : "NULL");
    putchar('\n');
    return 0;
}

int main(int argc, char **argv) {
    sqlite3 *database;
    if (sqlite3_open(":memory:", &database))
        return 2;
    for (int i = 0; i < argc; i++) {
        char *message = NULL;
        if (sqlite3_exec(database, argv[i], print_row, NULL, &message)) {
            fprintf(stderr, "%s\n", message);
            sqlite3_free(message);
            return 3;
        }
    }
    return sqlite3_close(database);
}
