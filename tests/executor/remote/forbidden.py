"""Acts that a sandbox forbids: each a function in C, which says whether the system refused it."""

from __future__ import annotations

import errno
from typing import NamedTuple

PRELUDE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#define REFUSED(call) do { if ((long)(call) == -1) return errno; } while (0)
#define PAGE 4096ul
#define OUTSIDE "outside"
#define READ "in"
#define WRITE "work"
#define CONTROLLER ((int)number_of("CONTROLLER"))
#define PLACE number_of("PLACE")
#define PORT ((short)number_of("PORT"))
static unsigned long number_of(const char *name) { return strtoul(getenv(name), 0, 10); }
/* A function in a page of its own. */
__asm__(".text\n.balign 4096\nvictim: ret\n.balign 4096\n");
extern char victim[];
static int open_socket(int family, int type) {
  int made = socket(family, type, 0);
  REFUSED(made);
  close(made);
  return 0;
}
static int fill(int file, long size) {
  static char bytes[1 << 16];
  for (; size > 0; size -= sizeof bytes)
    REFUSED(write(file, bytes, sizeof bytes));
  return 0;
}
"""


class Act(NamedTuple):
    """An act.

    Attributes:
        body: statements that return 0, or the number of the error if they are refused. ``OUTSIDE``,
            ``READ`` and ``WRITE`` are directories, each with a ``file``; ``CONTROLLER`` is a
            process, ``PLACE`` an address in it, and ``PORT`` a port of it that listens.
        refusal: the error in a sandbox.
        is_common: whether all systems let a process do it that is in no sandbox.
    """

    body: str
    refusal: int = errno.EPERM
    is_common: bool = True


NOT_ALLOWED = errno.EACCES
"""What Landlock refuses with."""
_EXECUTABLE = """
  char *place = mmap(0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
  REFUSED(place);
  ((void (*)(void))place)();
"""
_CHILD = "REFUSED(child); if (!child) _exit(0); waitpid(child, 0, 0);"

ACTS = {
    # Files.
    "read": Act('REFUSED(open(OUTSIDE "/file", O_RDONLY));', NOT_ALLOWED),
    "list": Act("REFUSED(open(OUTSIDE, O_RDONLY | O_DIRECTORY));", NOT_ALLOWED),
    "read through ..": Act('REFUSED(open(READ "/../outside/file", O_RDONLY));', NOT_ALLOWED),
    "read through a link": Act('REFUSED(open(READ "/link", O_RDONLY));', NOT_ALLOWED),
    "write": Act('REFUSED(open(OUTSIDE "/file", O_WRONLY));', NOT_ALLOWED),
    "write what can be read": Act('REFUSED(open(READ "/file", O_RDWR));', NOT_ALLOWED),
    "create": Act('REFUSED(open(OUTSIDE "/new", O_CREAT | O_WRONLY, 0600));', NOT_ALLOWED),
    "truncate": Act('REFUSED(truncate(OUTSIDE "/file", 1));', NOT_ALLOWED),
    "truncate while reading": Act('REFUSED(open(READ "/file", O_RDONLY | O_TRUNC));'),
    "remove": Act('REFUSED(unlink(OUTSIDE "/removed"));', NOT_ALLOWED),
    "rename": Act('REFUSED(rename(OUTSIDE "/renamed", WRITE "/renamed"));', NOT_ALLOWED),
    "link": Act('REFUSED(link(OUTSIDE "/file", WRITE "/linked"));', errno.EXDEV),
    "make a directory": Act('REFUSED(mkdir(OUTSIDE "/directory", 0700));', NOT_ALLOWED),
    "make a symbolic link": Act('REFUSED(symlink("/", WRITE "/symbolic"));'),
    "make a pipe": Act('REFUSED(mkfifo(WRITE "/pipe", 0600));'),
    "change a mode": Act('REFUSED(chmod(OUTSIDE "/file", 0666));'),
    "change times": Act('REFUSED(utimensat(AT_FDCWD, OUTSIDE "/file", 0, 0));'),
    "system's files": Act('REFUSED(open("/proc/self/maps", O_RDONLY));', NOT_ALLOWED),
    # Sockets.
    "inet": Act("return open_socket(AF_INET, SOCK_STREAM);"),
    "inet datagrams": Act("return open_socket(AF_INET, SOCK_DGRAM);"),
    "inet6": Act("return open_socket(AF_INET6, SOCK_STREAM);", is_common=False),
    "unix": Act("return open_socket(AF_UNIX, SOCK_STREAM);"),
    "netlink": Act("return open_socket(AF_NETLINK, SOCK_RAW);"),
    "pair of sockets": Act(
        # One of datagrams reaches every address.
        "int pair[2]; REFUSED(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));"
    ),
    "connect": Act("""
      struct sockaddr_in address = {AF_INET, htons(PORT), {htonl(INADDR_LOOPBACK)}, {0}};
      int made = socket(AF_INET, SOCK_STREAM, 0);
      REFUSED(connect(made < 0 ? 0 : made, (struct sockaddr *)&address, sizeof address));
      close(made);
    """),
    # Processes.
    "fork": Act("int child = fork(); " + _CHILD),
    "vfork": Act("int child = vfork(); " + _CHILD),
    "fork bomb": Act("""
      int ends[2], count = 0, error = 0;
      REFUSED(pipe(ends));
      while (count < 100 && !error) {
        int child = fork();
        if (!child) {
          /* Until nothing has the other end, be the others ended or killed. */
          close(ends[1]);
          _exit((int)read(ends[0], &error, 1));
        }
        if (child < 0) error = errno;
        else count++;
      }
      close(ends[1]);
      while (count--) wait(0);
      close(ends[0]);
      return error;
    """),
    "posix_spawn": Act('return system("exit 0") ? EPERM : 0;'),
    "namespace": Act(
        "int child = (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);"
        + _CHILD,
        is_common=False,
    ),
    "namespace of this process": Act("REFUSED(unshare(CLONE_NEWNET));", is_common=False),
    "ptrace": Act(
        """
      REFUSED(ptrace(PTRACE_SEIZE, CONTROLLER, 0, 0));
      ptrace(PTRACE_INTERRUPT, CONTROLLER, 0, 0);
      waitpid(CONTROLLER, 0, __WALL);
      ptrace(PTRACE_DETACH, CONTROLLER, 0, 0);
    """,
        is_common=False,
    ),
    "write to another process": Act(
        """
      char text[] = "written";
      struct iovec here = {text, 7}, there = {(void *)PLACE, 7};
      REFUSED(process_vm_writev(CONTROLLER, &here, 1, &there, 1, 0));
    """,
        is_common=False,
    ),
    "read another process": Act(
        """
      char text[7];
      struct iovec here = {text, 7}, there = {(void *)PLACE, 7};
      REFUSED(process_vm_readv(CONTROLLER, &here, 1, &there, 1, 0));
    """,
        is_common=False,
    ),
    "kill": Act("REFUSED(kill(CONTROLLER, SIGCONT));"),
    "kill a group": Act("REFUSED(kill(0, SIGCONT));"),
    "kill all": Act("REFUSED(kill(-1, 0));"),
    "kill a thread": Act("REFUSED(syscall(SYS_tgkill, CONTROLLER, CONTROLLER, SIGCONT));"),
    "signals of a descriptor": Act("REFUSED(fcntl(2, F_SETOWN, CONTROLLER));"),
    "limits of another process": Act(
        "struct rlimit old; REFUSED(prlimit(CONTROLLER, RLIMIT_CORE, 0, &old));"
    ),
    "priority of another process": Act(
        "int present = getpriority(PRIO_PROCESS, CONTROLLER);"
        "REFUSED(setpriority(PRIO_PROCESS, CONTROLLER, present));"
    ),
    "memory of other processes": Act("REFUSED(shmget(IPC_PRIVATE, PAGE, 0600));"),
    # Code.
    "write to code": Act("REFUSED(mprotect(victim, PAGE, PROT_READ | PROT_WRITE));", NOT_ALLOWED),
    "write to code and run it": Act(
        "REFUSED(mprotect(victim, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC)); *victim = 0x90;"
    ),
    "writable code": Act(
        "REFUSED(mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,"
        " MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));"
    ),
    "written code": Act("""
      char *place = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      *place = (char)0xc3;
      REFUSED(mprotect(place, PAGE, PROT_READ | PROT_EXEC));
      ((void (*)(void))place)();
    """),
    "written code with a key": Act(
        """
      char *place = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      REFUSED(syscall(SYS_pkey_mprotect, place, PAGE, PROT_READ | PROT_EXEC, -1));
    """,
        is_common=False,
    ),
    "code of a memory file": Act(
        """
      int file = (int)syscall(SYS_memfd_create, "code", 0);
      REFUSED(file);
      REFUSED(write(file, "\\xc3", 1));
    """
        + _EXECUTABLE
    ),
    "code of a file": Act(
        """
      int file = open(WRITE "/code", O_RDWR | O_CREAT, 0600);
      REFUSED(file);
      REFUSED(write(file, "\\xc3", 1));
    """
        + _EXECUTABLE
    ),
    "code under the number of code": Act(
        """
      int file = open(WRITE "/code", O_RDWR | O_CREAT, 0600);
      REFUSED(write(file, "\\xc3", 1));
      for (int other = 3; other < 1024; other++)
        if (other != file && fcntl(other, F_GET_SEALS) > 0) {
          REFUSED(dup2(file, other));
          file = other;
        }
    """
        + _EXECUTABLE
    ),
    "code by /proc/self/mem": Act(
        """
      int file = open("/proc/self/mem", O_RDWR);
      REFUSED(file);
      char *code = (char *)&abs, byte = *code;
      REFUSED(pwrite(file, &byte, 1, (off_t)code));
      close(file);
    """,
        NOT_ALLOWED,
        is_common=False,
    ),
    "all memory is executable": Act("REFUSED(personality(READ_IMPLIES_EXEC)); personality(0);"),
    "dumpable": Act("REFUSED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));"),
    "io_uring": Act(
        "char parameters[120] = {0}; long ring = syscall(SYS_io_uring_setup, 1, parameters);"
        "REFUSED(ring); close((int)ring);",
        is_common=False,
    ),
    "userfaultfd": Act(
        "long file = syscall(SYS_userfaultfd, 1); REFUSED(file); close((int)file);",
        is_common=False,
    ),
    # Limits.
    "memory": Act("""
      char *block = malloc(1ul << 30);
      if (!block) return errno;
      for (unsigned long n = 0; n < 1ul << 30; n += 1ul << 24) block[n] = 1;
      free(block);
    """, errno.ENOMEM),
}  # fmt: skip

ENDS = {
    "processor time": (
        "while (clock() < 1.5 * CLOCKS_PER_SEC) ;",
        "SIGXCPU; .*limit of processor time is reached",
    ),
    "size of a file": (
        'int file = open(WRITE "/large", O_CREAT | O_WRONLY, 0600); return fill(file, 3 << 20);',
        "SIGXFSZ; .*limit of the size of files is reached",
    ),
}
"""Acts that end a sandbox: the body, and what the error says."""
