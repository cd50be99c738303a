/* Calls every function of the C library that allocates for its caller, in a program with an
 * allocator of its own, in part 2. Its free ends the program if it gets memory of another one.
 */
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

extern int is_own(const void *);
extern int allocations(void);
extern char *__strdup(const char *);

#if PART == 1
static int formatted(char **text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(text, format, arguments);
    va_end(arguments);
    return length;
}

static void show(const char *what, char *text) {
    printf("%s: %s, %s\n", what, text ? text : "(null)", is_own(text) ? "own" : "FOREIGN");
    free(text);
}

static int is_directory(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void strings(void) {
    show("strdup", strdup("text"));
    show("strndup", strndup("longer text", 6));
    show("__strdup", __strdup("again"));
    wchar_t *wide = wcsdup(L"wide");
    printf("wcsdup: %ls, %d\n", wide, is_own(wide));
    free(wide);
    char *text = 0;
    printf("%d\n", asprintf(&text, "%s %d", "formatted", 42));
    show("asprintf", text);
    printf("%d\n", formatted(&text, "%05.1f", 2.5));
    show("vasprintf", text);
}

static void lines(void) {
    FILE *file = tmpfile();
    for (int each = 0; each < 300; ++each)
        fputs("0123456789", file);
    fputs("\nsecond\nthird;fourth", file);
    rewind(file);
    char *line = 0;
    size_t size = 0;
    while (getline(&line, &size, file) > 0)
        printf("getline: %zu %.8s, %d %d\n", strlen(line), line, is_own(line), size > strlen(line));
    printf("%d %d\n", feof(file) != 0, is_own(line));
    free(line);
    fseek(file, -12, SEEK_END);
    line = malloc(3);
    size = 3;
    printf("%zd\n", getdelim(&line, &size, ';', file));
    show("getdelim", line);
    errno = 0;
    ssize_t none = getline(0, &size, file);
    printf("%zd %d\n", none, errno == EINVAL);
    fclose(file);
}

static void paths(void) {
    show("realpath", realpath("/usr/../usr/.", 0));
    show("realpath", realpath("/no/such/path", 0));
    char buffer[4096];
    printf("%d\n", realpath("/tmp", buffer) == buffer);
    show("canonicalize_file_name", canonicalize_file_name("/usr/bin/.."));
    if (chdir("/usr"))
        abort();
    show("getcwd", getcwd(0, 0));
    char *room = getcwd(0, 1000);
    memset(room, 'x', 999);
    room[999] = 0;
    printf("%zu, %d\n", strlen(room), is_own(room));
    free(room);
    errno = 0;
    char *none = getcwd(0, 2);
    printf("%d %d\n", none == 0, errno == ERANGE);
    setenv("PWD", "/usr", 1);
    show("get_current_dir_name", get_current_dir_name());
    char *name = tempnam("/tmp", "abc");
    printf("tempnam: %.8s, %d\n", name, is_own(name));
    free(name);
}

static void directories(void) {
    struct dirent **entries = 0;
    int count = scandir("/usr/share/../../usr", &entries, is_directory, alphasort);
    printf("scandir: %d, %s, %d\n", count > 3, entries[0]->d_name, is_own(entries));
    for (int each = 0; each < count; ++each) {
        if (!is_own(entries[each]))
            abort();
        free(entries[each]);
    }
    free(entries);
    errno = 0;
    count = scandir("/no/such", &entries, 0, 0);
    printf("%d %d\n", count, errno == ENOENT);
}

static void streams(void) {
    char *text = 0;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    fputs("one", stream);
    fflush(stream);
    printf("%zu %s\n", size, text);
    for (int each = 0; each < 1000; ++each)
        fprintf(stream, " %d", each);
    fflush(stream);
    printf("%zu %ld\n", size, ftell(stream));
    fseek(stream, 1, SEEK_SET);
    fputs("NE", stream);
    fflush(stream);
    printf("%zu %.8s\n", size, text);
    fseek(stream, 5000, SEEK_SET);
    fputs("end", stream);
    fclose(stream);
    printf("%zu %zu %.4s %s %d\n", size, strlen(text), text + 3889, text + 5000, is_own(text));
    free(text);
    fclose(open_memstream(&text, &size));
    printf("%zu '%s' %d\n", size, text, is_own(text));
    free(text);
}

static void scans(void) {
    char *word = 0, *set = 0, *letters = 0, *failed = (char *)1;
    wchar_t *wide = 0;
    int number = 0, at = 0;
    int count = sscanf("12 some words] 7% abc", "%d %ms%*[ ]%m[^]]%n] %*d%% %2mc", &number, &word, &set,
                       &at, &letters);
    printf("sscanf: %d %d %s '%s' %d %.2s\n", count, number, word, set, at, letters);
    printf("%d%d%d\n", is_own(word), is_own(set), is_own(letters));
    free(word), free(set), free(letters);
    count = sscanf("x1 y", "%2$ms %1$mls", &wide, &word);
    printf("%d %s %ls %d%d\n", count, word, wide, is_own(word), is_own(wide));
    free(word), free(wide);
    count = sscanf("only", "%ms %ms", &word, &failed);
    printf("%d %s %d\n", count, word, failed == 0);
    free(word);
    count = sscanf("abc", "%99999999mc", &letters);
    printf("%d %.3s %d\n", count, letters, is_own(letters));
    free(letters);
    count = sscanf("abc", "%99999999mlc", &wide);
    printf("%d %.3ls %d\n", count, wide, is_own(wide));
    free(wide);
    FILE *file = tmpfile();
    fputs("from a file", file);
    rewind(file);
    printf("%d\n", fscanf(file, "%ms", &word));
    show("fscanf", word);
    fclose(file);
}

int main(void) {
    strings();
    lines();
    paths();
    directories();
    streams();
    scans();
    void *frames[8];
    int count = backtrace(frames, 8);
    char **names = backtrace_symbols(frames, count);
    printf("backtrace_symbols: %d %d\n", is_own(names), strlen(names[0]) > 0);
    free(names);
    int *numbers = reallocarray(0, 100, sizeof *numbers);
    printf("reallocarray: %d\n", is_own(numbers));
    free(numbers);
    printf("%d\n", allocations() > 30);
    fflush(stdout);
    return 0;
}
#else
static char heap[1 << 24] __attribute__((aligned(16)));
static size_t used;
static int count;

int is_own(const void *memory) {
    return !memory || ((char *)memory >= heap && (char *)memory < heap + sizeof heap);
}

int allocations(void) { return count; }

void *malloc(size_t size) {
    size_t *block = (size_t *)(heap + used);
    used += (size + 31) & ~(size_t)15;
    if (used > sizeof heap)
        return 0;
    *block = size;
    ++count;
    return block + 2;
}

void free(void *memory) {
    if (!is_own(memory)) {
        static const char message[] = "free of foreign memory\n";
        if (write(2, message, sizeof message - 1))
            _exit(3);
    }
    if (memory)
        memset(memory, 0xa5, ((size_t *)memory)[-2]);
}

void *calloc(size_t number, size_t size) {
    return malloc(number * size);
}

void *realloc(void *memory, size_t size) {
    void *larger = malloc(size);
    if (memory && larger) {
        size_t before = ((size_t *)memory)[-2];
        memcpy(larger, memory, before < size ? before : size);
        free(memory);
    }
    return larger;
}
#endif
