"""Sandboxes on systems that lack some of what they use: older kernels, which a filter imitates."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl, Sandbox
from jitlink.executor.remote.sandbox import FEATURES
from tests.executor.remote.forbidden import ACTS
from tests.executor.remote.sandboxes import Place, launcher
from tests.toolchain import compile_c, require

pytestmark = pytest.mark.usefixtures("sandboxes")

WITHOUT = r"""
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
/* Runs a command on a system that lacks a system call. */
int main(int count, char **words) {
  struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)atoi(words[1]), 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 38),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {4, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) return 99;
  execv(words[2], words + 2);
  return 98;
}
"""
LANDLOCK_CREATE_RULESET, SECCOMP, CLOSE_RANGE = 444, 317, 436
BY_SECCOMP = {"system-calls", "network", "processes", "code"}


def wrapper(place: Place, source: str, number: int, before: str = "") -> Path:
    """A program that starts jitlink's executor by another one, which is built from a source."""
    program = place.outside.parent / "wrapper"
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    subprocess.run([require("gcc"), compiled, "-o", program], check=True)
    return launcher(place, before=f"{before} {program} {number}")


def without(place: Place, number: int, before: str = "") -> Path:
    """A program that starts jitlink's executor without a system call."""
    return wrapper(place, WITHOUT, number, before)


@pytest.mark.parametrize(
    ("number", "unavailable"),
    [
        (LANDLOCK_CREATE_RULESET, {"files"} | ({"code"} if os.getuid() == 0 else set())),
        (SECCOMP, BY_SECCOMP),
        (CLOSE_RANGE, {"privileges"}),
    ],
)
def test_a_system_that_lacks_something(number: int, unavailable: set[str], place: Place) -> None:
    script = without(place, number)
    with pytest.raises(ExecutorError) as caught:
        RemoteExecutorProcessControl.launch(script, sandbox=Sandbox())
    for name in FEATURES:
        assert (f"cannot enforce {name}:" in str(caught.value)) == (name in unavailable)
    for name in unavailable:
        with pytest.raises(ExecutorError, match=f"cannot enforce {name}"):
            RemoteExecutorProcessControl.launch(
                script, sandbox=Sandbox(accept=unavailable - {name})
            )
    sandbox = Sandbox(accept=unavailable)
    with RemoteExecutorProcessControl.launch(script, sandbox=sandbox) as executor:
        report = executor.sandbox_report
        assert {name for name, reason in report.items() if reason is not None} == unavailable
        assert "Function not implemented" in " ".join(filter(None, report.values()))
        compiled = place.compiled(ACTS["inet"].body)
        with jitlink.load(compiled, executor=executor) as library:
            assert library.act() == (0 if "network" in unavailable else errno.EPERM)


OLDER = r"""
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
/* Runs a command on a system with another version of Landlock. */
int main(int count, char **words) {
  struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 444, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {4, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 99;
  int file = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                          SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (file < 0) return 98;
  pid_t child = fork();
  if (!child) { close(file); execv(words[2], words + 2); _exit(97); }
  for (int call = 0; call < 2; call++) {
    struct seccomp_notif asked = {0};
    if (ioctl(file, SECCOMP_IOCTL_NOTIF_RECV, &asked)) return 96;
    struct seccomp_notif_resp answer = {.id = asked.id};
    if (asked.data.args[2] & 1) answer.val = atoi(words[1]);
    else answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (ioctl(file, SECCOMP_IOCTL_NOTIF_SEND, &answer)) return 95;
  }
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) raise(WTERMSIG(status));
  return WEXITSTATUS(status);
}
"""


@pytest.mark.parametrize("version", [1, 2, 3, 5])
def test_older_versions_of_landlock(version: int, place: Place) -> None:
    script = wrapper(place, OLDER, version)
    refused = {"read", "list", "write", "write what can be read", "create", "remove", "rename"}
    refused |= {"truncate", "truncate while reading", "kill", "connect", "unix"}
    with RemoteExecutorProcessControl.launch(script, sandbox=place.sandbox()) as executor:
        assert set(executor.sandbox_report.values()) == {None}
        for name in refused:
            with jitlink.load(place.compiled(ACTS[name].body), executor=executor) as library:
                assert library.act() in (errno.EPERM, errno.EACCES, errno.EXDEV), name
        body = """
        FILE *made = fopen(WRITE "/made", "w");
        if (!made || fputs("made", made) < 0 || fclose(made)) return errno;
        REFUSED(open(READ "/file", O_RDONLY));
        int file = open(WRITE "/made", O_RDWR | O_TRUNC);
        REFUSED(ftruncate(file, 10));
        return truncate(WRITE "/made", 2) ? errno : 0;
        """
        with jitlink.load(place.compiled(body), executor=executor) as library:
            assert library.act() == (0 if version >= 3 else errno.EPERM)


def test_code_without_landlock(place: Place) -> None:
    """Only root can write to the memory of a process that is not dumpable."""
    if os.getuid() == 0:
        user = f"{require('setpriv')} --reuid=64123 --regid=64123 --clear-groups"
        script = without(place, LANDLOCK_CREATE_RULESET, user)
        place.outside.parent.chmod(0o755)
    else:
        script = without(place, LANDLOCK_CREATE_RULESET)
    sandbox = Sandbox(accept=["files"])
    with RemoteExecutorProcessControl.launch(script, sandbox=sandbox) as executor:
        assert executor.sandbox_report["code"] is None
        for name, expected in (
            ("code by /proc/self/mem", errno.EACCES),
            ("write to code", errno.EACCES),
            ("written code", errno.EPERM),
        ):
            compiled = place.compiled(ACTS[name].body)
            with jitlink.load(compiled, executor=executor) as library:
                assert library.act() == expected
