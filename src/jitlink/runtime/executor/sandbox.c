/* The sandbox: what code of this process cannot do, once the sandbox is closed.
 *
 * It is closed before there is a second thread, and before any code was placed. System calls that
 * are not in a list fail (system_calls.c); files are for Landlock; limits are the kernel's own. Only
 * memory of the controller's, which this process cannot write to, is ever made executable.
 *
 * Specification: landlock(7), setrlimit(2), capabilities(7), memfd_create(2).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sandbox.h"

/* Options */

static const char *const option_names[] = {
    "--sandbox",         "--sandbox-network",   "--sandbox-kill",       "--sandbox-memory=",
    "--sandbox-read=",   "--sandbox-cpu-time=", "--sandbox-processes=", "--sandbox-file-size=",
    "--sandbox-write=",  "--sandbox-library=",  "--sandbox-code=",      "--sandbox-accept=",
};
enum { MOST_OPTIONS = 1024 };
static const char *options[MOST_OPTIONS];
static size_t option_count;

int sandbox_option(const char *word) {
  for (size_t each = 0; each < sizeof option_names / sizeof *option_names; ++each) {
    size_t length = strlen(option_names[each]);
    bool is_valued = option_names[each][length - 1] == '=';
    if (option_count < MOST_OPTIONS && !strncmp(word, option_names[each], length) &&
        (is_valued ? word[length] : !word[length])) {
      options[option_count++] = word;
      return 0;
    }
  }
  return -1;
}

/* The value of the next option of a name from a place on; null if there is none. */
static const char *next_option(const char *name, size_t *place) {
  while (*place < option_count) {
    const char *word = options[(*place)++];
    if (!strncmp(word, name, strlen(name)))
      return word + strlen(name);
  }
  return 0;
}

const char *option(const char *name) {
  size_t place = 0;
  return next_option(name, &place);
}

/* Features: each function says why its feature is unavailable, or returns null. */

static char reason[200];

const char *failed(const char *what) {
  snprintf(reason, sizeof reason, "%s: %s", what, strerror(errno));
  return reason;
}

/* Sets a resource limit to the value of an option and more, unless it is lower. */
static const char *limit(const char *name, int resource, rlim_t more, rlim_t grace) {
  const char *text = option(name);
  char *end;
  errno = 0;
  rlim_t value = text ? strtoull(text, &end, 10) : 0;
  if (!text)
    return 0;
  if (*end || *text == '-' || errno || value > RLIM_INFINITY / 4)
    return "not a number";
  struct rlimit limits;
  if (getrlimit(resource, &limits))
    return failed("getrlimit");
  rlim_t soft = value + more, hard = soft + grace;
  limits.rlim_max = hard < limits.rlim_max ? hard : limits.rlim_max;
  limits.rlim_cur = soft < limits.rlim_max ? soft : limits.rlim_max;
  return setrlimit(resource, &limits) ? failed("setrlimit") : 0;
}

/* What is mapped before the sandbox is closed. */
static rlim_t used_memory;
static bool has_writable_code;

static void add_mappings(void) {
  struct bytes list = all_mappings(0);
  unsigned long start, end;
  char rights[8];
  put_u8(&list, 0);
  for (const char *line = list.data; sscanf(line, "%lx-%lx %7s", &start, &end, rights) == 3;
       line = strchr(line, '\n') + 1) {
    used_memory += end - start;
    has_writable_code |= rights[1] == 'w' && rights[2] == 'x';
  }
  free(list.data);
}

static const char *limit_memory(void) {
  return limit("--sandbox-memory=", RLIMIT_AS, used_memory, 0);
}

/* The hard limit is later, so that SIGXCPU says why the process was ended. */
static const char *limit_cpu_time(void) { return limit("--sandbox-cpu-time=", RLIMIT_CPU, 0, 1); }

static const char *limit_file_size(void) {
  return limit("--sandbox-file-size=", RLIMIT_FSIZE, 0, 0);
}

/* Without the option there are none: that is in the list of system calls. */
static const char *limit_processes(void) {
  if (option("--sandbox-processes=") && !getuid())
    return "the system does not limit root's processes";
  return limit("--sandbox-processes=", RLIMIT_NPROC, 0, 0);
}

static int kept_files[4]; /* beside standard ones */

/* Closes descriptors that this process was started with by accident. */
static bool close_others(void) {
  unsigned from = 3, next;
  do {
    next = ~0u;
    for (size_t each = 0; each < sizeof kept_files / sizeof *kept_files; ++each)
      if ((unsigned)kept_files[each] >= from && (unsigned)kept_files[each] < next)
        next = (unsigned)kept_files[each];
    if (next > from && syscall(SYS_close_range, from, next == ~0u ? next : next - 1, 0))
      return false;
    from = next + 1;
  } while (next != ~0u);
  return true;
}

static const char *drop_privileges(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
  struct rlimit no_core = {0, 0};
  if (!close_others())
    return failed("close_range");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return failed("PR_SET_NO_NEW_PRIVS");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    return failed("PR_SET_DUMPABLE");
  if (setrlimit(RLIMIT_CORE, &no_core))
    return failed("setrlimit");
  return syscall(SYS_capset, &header, none) ? failed("capset") : 0;
}

/* Files, by Landlock */

enum {
  FILE_READ = LANDLOCK_ACCESS_FS_READ_FILE,
  DIRECTORY_READ = FILE_READ | LANDLOCK_ACCESS_FS_READ_DIR,
  FILE_WRITE = FILE_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE,
  /* No symbolic links and special files: they are for those who open them, who may be others. */
  DIRECTORY_WRITE = DIRECTORY_READ | FILE_WRITE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
                    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REFER,
  PROC = 0x9fa0,
};
int landlock_version;
static bool can_write_files, can_write_proc;

static const char *allow_below(int rules, const char *path, uint64_t rights, bool is_library) {
  struct stat status, root;
  struct statfs system;
  struct landlock_path_beneath_attr beneath = {rights, open(path, O_PATH | O_CLOEXEC)};
  if (beneath.parent_fd < 0 || fstat(beneath.parent_fd, &status) ||
      fstatfs(beneath.parent_fd, &system) || stat("/", &root))
    return failed(path);
  bool is_directory = S_ISDIR(status.st_mode);
  if (!is_directory)
    beneath.allowed_access &= FILE_WRITE;
  if (rights & LANDLOCK_ACCESS_FS_WRITE_FILE) {
    can_write_files = true;
    can_write_proc |= system.f_type == PROC ||
                      (status.st_dev == root.st_dev && status.st_ino == root.st_ino);
  }
  if ((is_directory || !is_library) &&
      syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
    return failed(path);
  close(beneath.parent_fd);
  return 0;
}

static const char *restrict_files(void) {
  /* The rights that each version has added: all known ones need to be handled. */
  static const uint64_t handled[] = {0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};
  enum { KNOWN = sizeof handled / sizeof *handled - 1, TCP = 4, SCOPES = 6 };
  long version = syscall(SYS_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1)
    return failed("Landlock");
  uint64_t known = handled[version < KNOWN ? version : KNOWN];
  struct landlock_ruleset_attr attributes = {.handled_access_fs = known};
  if (version >= TCP && !option("--sandbox-network"))
    attributes.handled_access_net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP;
  if (version >= SCOPES)
    attributes.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL;
  int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
  if (rules < 0)
    return failed("Landlock");
  static const struct {
    const char *name;
    uint64_t rights;
    bool is_library;
  } kinds[] = {{"--sandbox-read=", DIRECTORY_READ, false},
               {"--sandbox-library=", DIRECTORY_READ, true},
               {"--sandbox-write=", DIRECTORY_WRITE, false}};
  const char *problem = 0, *path;
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; ++kind)
    for (size_t place = 0; !problem && (path = next_option(kinds[kind].name, &place));)
      problem = allow_below(rules, path, kinds[kind].rights & known, kinds[kind].is_library);
  if (!problem && syscall(SYS_landlock_restrict_self, rules, 0))
    problem = failed("Landlock");
  close(rules);
  landlock_version = problem ? 0 : (int)version;
  return problem;
}

/* Code */

int code_file = -1;
bool has_libraries;

static bool is_directory(const char *path) {
  struct stat status;
  return !stat(path, &status) && S_ISDIR(status.st_mode);
}

static const char *protect_code(void) {
  const char *text = option("--sandbox-code=");
  char end;
  if (!text)
    return "the controller gives no memory for code";
  uint64_t size = sscanf(text, "%d%c", &code_file, &end) == 1 ? adopt_shared_memory(code_file) : 0;
  if (!size) {
    code_file = -1;
    return "the controller's memory for code is not sealed, or cannot be mapped";
  }
  used_memory += size;
  if (has_writable_code)
    return "memory is writable and executable, such as the stack for some libraries";
  if (can_write_proc || (!landlock_version && !getuid()))
    return "/proc/self/mem can be written";
  if (!has_libraries)
    return 0;
  /* What the program can write it must not be able to load. */
  if (!landlock_version || can_write_files)
    return "libraries of a directory are loaded, and files can be written";
  for (int file = 0; file <= 2; ++file) {
    struct stat status;
    if (!fstat(file, &status) && S_ISREG(status.st_mode) &&
        (fcntl(file, F_GETFL) & O_ACCMODE) != O_RDONLY)
      return "libraries of a directory are loaded, and standard output or error is a file";
  }
  return 0;
}

/* Closing it */

/* In this order: some forbid what those before them need. */
static struct feature {
  const char *name;
  const char *wanted; /* with this option only, if there is one here */
  const char *(*enforce)(void);
  bool needs_filter;
  char problem[sizeof reason];
} features[] = {
    {"privileges", 0, drop_privileges, false, ""},
    {"cpu-time", "--sandbox-cpu-time=", limit_cpu_time, false, ""},
    {"file-size", "--sandbox-file-size=", limit_file_size, false, ""},
    {"processes", 0, limit_processes, true, ""},
    {"files", 0, restrict_files, false, ""},
    {"code", 0, protect_code, true, ""},
    {"memory", "--sandbox-memory=", limit_memory, false, ""},
    {"network", 0, 0, true, ""},
    {"system-calls", 0, filter_calls, true, ""},
};
enum { FEATURES = sizeof features / sizeof *features };

static bool is_wanted(const struct feature *feature) {
  bool is_the_filters = !feature->enforce;
  return is_the_filters ? !option("--sandbox-network")
                        : !feature->wanted || option(feature->wanted);
}

/* What programs expect in their process: it cannot be loaded later. */
static bool load_libraries(void) {
  load_providers(0);
  const char *path;
  for (size_t place = 0; (path = next_option("--sandbox-library=", &place));)
    if (is_directory(path)) {
      has_libraries = true;
    } else if (!dlopen(path, RTLD_NOW | RTLD_GLOBAL)) {
      fprintf(stderr, "jitlink-executor: cannot load %s: %s\n", path, dlerror());
      return false;
    }
  return true;
}

static bool is_accepted(const char *name) {
  const char *accepted;
  for (size_t place = 0; (accepted = next_option("--sandbox-accept=", &place));)
    if (!strcmp(accepted, name))
      return true;
  return false;
}

bool close_sandbox(int incoming, int outgoing) {
  if (!option_count)
    return true;
  if (!load_libraries())
    return false;
  mappings_file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  add_mappings();
  if (!used_memory) {
    perror("jitlink-executor: /proc/self/maps");
    return false;
  }
  const char *code = option("--sandbox-code="), *problem = 0;
  const int kept[] = {incoming, outgoing, mappings_file, code ? atoi(code) : -1};
  memcpy(kept_files, kept, sizeof kept_files);
  for (struct feature *each = features; each < features + FEATURES; ++each)
    if (is_wanted(each) && each->enforce && (problem = each->enforce()))
      snprintf(each->problem, sizeof each->problem, "%s", problem);
  const char *no_filter = features[FEATURES - 1].problem;
  bool is_closed = true;
  for (struct feature *each = features; each < features + FEATURES; ++each) {
    if (*no_filter && each->needs_filter && !*each->problem)
      snprintf(each->problem, sizeof each->problem, "%s", no_filter);
    if (!is_wanted(each) || !*each->problem || is_accepted(each->name))
      continue;
    fprintf(stderr, "jitlink-executor: the sandbox cannot enforce %s: %s\n", each->name,
            each->problem);
    is_closed = false;
  }
  return is_closed;
}

/* Sequence<Tuple<String feature, String problem>>(): nothing without a sandbox. */
static wrapper_result report(const char *data, size_t size) {
  (void)data, (void)size;
  struct bytes bytes = {0};
  uint64_t count = 0;
  for (struct feature *each = features; option_count && each < features + FEATURES; ++each)
    count += is_wanted(each);
  put_u64(&bytes, count);
  for (struct feature *each = features; option_count && each < features + FEATURES; ++each)
    if (is_wanted(each)) {
      put_text(&bytes, each->name);
      put_text(&bytes, each->problem);
    }
  return result_of(&bytes);
}

const struct bootstrap_symbol sandbox_symbols[] = {
    {"__jitlink_executor_sandbox_report", (const void *)report},
    {0, 0},
};
