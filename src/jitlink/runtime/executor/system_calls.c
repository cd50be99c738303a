/* The sandbox's list of system calls: what is not in it fails, or ends the process.
 *
 * A filter sees numbers, not what pointers point to; so there are no calls whose arguments are in
 * memory and matter. Calls that are newer than this list do not exist in the sandbox, so that the C
 * library falls back on others.
 *
 * Specification: seccomp(2), Documentation/userspace-api/seccomp_filter.rst of Linux.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../machine.h"
#include "sandbox.h"

enum comparison { ANY, EQUAL, OTHER, BELOW };
/* A comparison of some bits of half an argument: its lower half has the number 2 * argument. */
struct test {
  unsigned char half, comparison;
  uint32_t mask, value;
};
/* A system call is allowed if all tests of one of its rules hold. */
struct rule {
  int number;
  struct test tests[3];
};

static struct sock_filter filter[2048];
static unsigned short filter_size;

static void emit(unsigned code, uint32_t value, unsigned if_true, unsigned if_false) {
  struct sock_filter made = {(uint16_t)code, (uint8_t)if_true, (uint8_t)if_false, value};
  if (filter_size == sizeof filter / sizeof *filter)
    abort();
  filter[filter_size++] = made;
}

static void emit_load(size_t offset) { emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0); }

static void emit_result(uint32_t result) { emit(BPF_RET | BPF_K, result, 0, 0); }

static void emit_jump(unsigned condition, uint32_t value, unsigned if_true, unsigned if_false) {
  emit(BPF_JMP | condition | BPF_K, value, if_true, if_false);
}

static void emit_rule(const struct rule *rule) {
  unsigned count = 0;
  while (count < 3 && rule->tests[count].comparison != ANY)
    ++count;
  emit_jump(BPF_JEQ, (uint32_t)rule->number, 0, count ? 3 * count + 2 : 1);
  for (unsigned each = 0; each < count; ++each) {
    const struct test *test = &rule->tests[each];
    unsigned to_end = 3 * (count - each) - 2;
    emit_load(offsetof(struct seccomp_data, args) + 4 * test->half);
    emit(BPF_ALU | BPF_AND | BPF_K, test->mask, 0, 0);
    if (test->comparison == EQUAL)
      emit_jump(BPF_JEQ, test->value, 0, to_end);
    else
      emit_jump(test->comparison == OTHER ? BPF_JEQ : BPF_JGE, test->value, to_end, 0);
  }
  emit_result(SECCOMP_RET_ALLOW);
  if (count)
    emit_load(offsetof(struct seccomp_data, nr));
}

#define ARGUMENT(number, comparison, mask, value) {2 * (number), comparison, mask, value}
#define EXACT(number, value) ARGUMENT(number, EQUAL, ~0u, (uint32_t)(value))
enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                    CLONE_NEWPID | CLONE_NEWNET,
       SET_NAME_OF_MEMORY = 0x53564d41 /* PR_SET_VMA */ };

/* What concerns this process only, and files and descriptors that it has. */
static const short plain_calls[] = {
    MACHINE_CALLS
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
    SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs,
    SYS_fstatfs, SYS_futex, SYS_futex_waitv, SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise,
    SYS_msync, SYS_mincore, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall,
    SYS_membarrier, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_rt_sigsuspend, SYS_sigaltstack, SYS_restart_syscall, SYS_dup,
    SYS_pipe2, SYS_pselect6, SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_epoll_pwait2, SYS_signalfd4, SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime,
    SYS_timerfd_gettime, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres,
    SYS_gettimeofday, SYS_times, SYS_getitimer, SYS_setitimer, SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_getrandom,
    SYS_getpid, SYS_getppid, SYS_gettid, SYS_getpgid, SYS_getsid, SYS_getuid, SYS_geteuid,
    SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_getpriority,
    SYS_getrlimit, SYS_setrlimit, SYS_getrusage, SYS_sysinfo, SYS_uname, SYS_umask, SYS_getcwd,
    SYS_chdir, SYS_fchdir, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getparam,
    SYS_sched_getscheduler, SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_getcpu,
    SYS_set_tid_address, SYS_set_robust_list, SYS_rseq, SYS_exit, SYS_exit_group, SYS_wait4,
    SYS_waitid, SYS_getdents64, SYS_mkdirat, SYS_unlinkat, SYS_linkat, SYS_renameat2,
    SYS_readlinkat, SYS_faccessat, SYS_faccessat2, SYS_ftruncate, SYS_fallocate, SYS_fsync,
    SYS_fdatasync, SYS_sync_file_range, SYS_flock, SYS_fadvise64, SYS_readahead, SYS_sendfile,
    SYS_splice, SYS_copy_file_range, SYS_shutdown, SYS_getsockname, SYS_getpeername,
    SYS_getsockopt, SYS_setsockopt, SYS_recvfrom,
};

static const struct rule checked_calls[] = {
    /* The version 2 of Landlock does not see a truncation without a right to write. */
    {SYS_openat, {ARGUMENT(2, EQUAL, O_TRUNC, 0)}},
    {SYS_openat, {ARGUMENT(2, EQUAL, O_ACCMODE, O_WRONLY)}},
    {SYS_openat, {ARGUMENT(2, EQUAL, O_ACCMODE, O_RDWR)}},
#ifdef SYS_open
    {SYS_open, {ARGUMENT(1, EQUAL, O_TRUNC, 0)}},
    {SYS_open, {ARGUMENT(1, EQUAL, O_ACCMODE, O_WRONLY)}},
    {SYS_open, {ARGUMENT(1, EQUAL, O_ACCMODE, O_RDWR)}},
#endif
    /* Up to locks: no signals to the owners of descriptors. */
    {SYS_fcntl, {ARGUMENT(1, BELOW, ~0u, F_SETOWN)}},
    {SYS_personality, {EXACT(0, ~0u)}},
    {SYS_prlimit64, {EXACT(0, 0)}},
    {SYS_sendto, {EXACT(4, 0), {9, EQUAL, ~0u, 0}}}, /* no address */
};

/* Calls that are allowed for some values of an argument. */
static const struct {
  int number;
  unsigned char argument;
  uint32_t values[12];
} chosen_calls[] = {
    {SYS_fcntl, 1,
     {F_DUPFD_CLOEXEC, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_GETPIPE_SZ, F_SETPIPE_SZ,
      F_GET_SEALS, F_ADD_SEALS}},
    /* Nothing that changes a terminal, or types at it. */
    {SYS_ioctl, 1, {TCGETS, TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX}},
    {SYS_prctl, 0,
     {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP,
      PR_CAPBSET_READ, PR_GET_TIMERSLACK, PR_SET_TIMERSLACK, SET_NAME_OF_MEMORY}},
};

static void allow_chosen(void) {
  for (size_t each = 0; each < sizeof chosen_calls / sizeof *chosen_calls; ++each)
    for (const uint32_t *value = chosen_calls[each].values; *value; ++value)
      emit_rule(&(struct rule){chosen_calls[each].number,
                               {EXACT(chosen_calls[each].argument, *value)}});
}

static void allow(const struct rule *rules, size_t count) {
  for (size_t each = 0; each < count; ++each)
    emit_rule(&rules[each]);
}

#define ALLOW(...)                                                                                 \
  do {                                                                                             \
    const struct rule rules[] = {__VA_ARGS__};                                                     \
    allow(rules, sizeof rules / sizeof *rules);                                                    \
  } while (0)

/* Memory becomes executable, or does not; the number of the descriptor of code stays what it is. */
static void allow_memory(void) {
  uint32_t code = (uint32_t)code_file;
  if (code_file < 0) {
    ALLOW({SYS_mmap, {{0}}}, {SYS_mprotect, {{0}}}, {SYS_close, {{0}}}, {SYS_dup3, {{0}}},
          {SYS_close_range, {{0}}}, {SYS_memfd_create, {{0}}});
#ifdef SYS_dup2
    ALLOW({SYS_dup2, {{0}}});
#endif
    return;
  }
  ALLOW({SYS_mmap, {ARGUMENT(2, EQUAL, PROT_EXEC, 0)}},
        {SYS_mmap, {ARGUMENT(2, EQUAL, PROT_EXEC | PROT_WRITE, PROT_EXEC),
                    ARGUMENT(3, EQUAL, MAP_ANONYMOUS, 0), EXACT(4, code)}},
        {SYS_mprotect, {ARGUMENT(2, EQUAL, PROT_EXEC, 0)}},
        {SYS_close, {ARGUMENT(0, OTHER, ~0u, code)}},
        {SYS_dup3, {ARGUMENT(1, OTHER, ~0u, code)}},
        {SYS_close_range, {ARGUMENT(1, BELOW, ~0u, code)}});
#ifdef SYS_dup2
  ALLOW({SYS_dup2, {ARGUMENT(1, OTHER, ~0u, code)}});
#endif
  if (has_libraries)
    ALLOW({SYS_mmap, {ARGUMENT(2, EQUAL, PROT_EXEC | PROT_WRITE, PROT_EXEC),
                      ARGUMENT(3, EQUAL, MAP_ANONYMOUS, 0)}});
}

/* Threads, processes, and signals to them: those of this process, or of the sandbox. */
static void allow_processes(void) {
  enum { SCOPES = 6 };
  uint32_t process = (uint32_t)getpid();
  bool has_processes = option("--sandbox-processes=");
  uint32_t wanted = has_processes ? 0 : CLONE_THREAD;
  ALLOW({SYS_clone, {ARGUMENT(0, EQUAL, NAMESPACES | CLONE_PARENT | wanted, wanted)}});
  if (has_processes && landlock_version >= SCOPES)
    ALLOW({SYS_kill, {{0}}}, {SYS_tgkill, {{0}}}, {SYS_rt_sigqueueinfo, {{0}}},
          {SYS_rt_tgsigqueueinfo, {{0}}});
  else
    ALLOW({SYS_kill, {EXACT(0, process)}}, {SYS_tgkill, {EXACT(0, process)}},
          {SYS_rt_sigqueueinfo, {EXACT(0, process)}}, {SYS_rt_tgsigqueueinfo, {EXACT(0, process)}});
#ifdef SYS_fork
  if (has_processes)
    ALLOW({SYS_fork, {{0}}}, {SYS_vfork, {{0}}});
#endif
}

static void allow_network(void) {
  ALLOW({SYS_socket, {EXACT(0, AF_INET)}}, {SYS_socket, {EXACT(0, AF_INET6)}}, {SYS_connect, {{0}}},
        {SYS_bind, {{0}}}, {SYS_listen, {{0}}}, {SYS_accept, {{0}}}, {SYS_accept4, {{0}}},
        {SYS_sendto, {{0}}}, {SYS_sendmsg, {{0}}}, {SYS_sendmmsg, {{0}}}, {SYS_recvmsg, {{0}}},
        {SYS_recvmmsg, {{0}}});
}

/* The name of a forbidden system call that programs are likely to try. */
static const char *name_of_call(int number) {
#define CALL(name) {SYS_##name, #name}
  static const struct {
    int number;
    const char *name;
  } calls[] = {
      CALL(socket), CALL(connect), CALL(bind), CALL(socketpair), CALL(execve), CALL(execveat),
      CALL(clone), CALL(ptrace), CALL(kill), CALL(tgkill), CALL(process_vm_readv),
      CALL(process_vm_writev), CALL(mprotect), CALL(mmap), CALL(unshare), CALL(setns),
      CALL(io_uring_setup), CALL(personality), CALL(prctl), CALL(memfd_create), CALL(ioctl),
#ifdef SYS_fork
      CALL(fork), CALL(vfork),
#endif
  };
#undef CALL
  for (size_t each = 0; each < sizeof calls / sizeof *calls; ++each)
    if (calls[each].number == number)
      return calls[each].name;
  return "unnamed";
}

/* Says why the sandbox ends this process, which it does when this function returns. */
static void report_end(int signal, siginfo_t *info, void *context) {
  (void)context;
  if (signal == SIGSYS)
    dprintf(2, "jitlink-executor: the sandbox forbids system call %d (%s)\n", info->si_syscall,
            name_of_call(info->si_syscall));
  else
    dprintf(2, "jitlink-executor: the sandbox's limit of %s is reached\n",
            signal == SIGXCPU ? "processor time" : "the size of files");
  struct sigaction ordinary = {.sa_handler = SIG_DFL};
  sigaction(signal, &ordinary, 0);
  kill(getpid(), signal);
}

static void report_signal(int signal) {
  struct sigaction reporting = {.sa_sigaction = report_end, .sa_flags = SA_SIGINFO};
  sigaction(signal, &reporting, 0);
}

const char *filter_calls(void) {
  enum { FIRST_UNKNOWN = 463 };
  bool kills = option("--sandbox-kill");
  emit_load(offsetof(struct seccomp_data, arch));
  emit_jump(BPF_JEQ, (uint32_t)AUDIT_ARCHITECTURE, 1, 0);
  emit_result(SECCOMP_RET_KILL_PROCESS);
  emit_load(offsetof(struct seccomp_data, nr));
  for (size_t each = 0; each < sizeof plain_calls / sizeof *plain_calls; ++each)
    emit_rule(&(struct rule){plain_calls[each], {{0}}});
  allow(checked_calls, sizeof checked_calls / sizeof *checked_calls);
  allow_chosen();
  allow_memory();
  allow_processes();
  if (option("--sandbox-network"))
    allow_network();
  if (landlock_version != 1 && landlock_version != 2) /* which do not see it */
    ALLOW({SYS_truncate, {{0}}});
  /* The C library falls back on calls whose arguments can be seen, or which are older. */
  emit_jump(BPF_JGE, FIRST_UNKNOWN, 2, 0);
  emit_jump(BPF_JEQ, SYS_clone3, 1, 0);
  emit_jump(BPF_JEQ, SYS_openat2, 0, 1);
  emit_result(SECCOMP_RET_ERRNO | ENOSYS);
  emit_result(kills ? SECCOMP_RET_TRAP : SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog program = {filter_size, filter};
  if (kills)
    report_signal(SIGSYS);
  if (option("--sandbox-cpu-time="))
    report_signal(SIGXCPU);
  if (option("--sandbox-file-size="))
    report_signal(SIGXFSZ);
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? failed("seccomp") : 0;
}
