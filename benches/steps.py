"""Instructions of a program until it becomes another one or ends, counted one by one (ptrace(2), PTRACE_SINGLESTEP): a
figure that no noise moves."""

import os
import signal

import harness

TRACEME, SINGLESTEP, KILL, SETOPTIONS = 0, 9, 8, 0x4200
TRACE_EXEC, KILL_WITH_US = 0x10, 0x100000
EXEC_EVENT = signal.SIGTRAP | 4 << 8
MOST = 5_000_000


def ptrace(request, pid, data=0):
    harness._checked(harness._libc.ptrace(request, pid, None, data))


def count(argv, env):
    """Of the program itself; what its children do is not in it."""
    pid = os.fork()
    if pid == 0:
        nothing = os.open("/dev/null", os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        ptrace(TRACEME, 0)
        os.execve(argv[0], argv, env)
    os.waitpid(pid, 0)
    ptrace(SETOPTIONS, pid, TRACE_EXEC | KILL_WITH_US)
    for steps in range(MOST):
        ptrace(SINGLESTEP, pid)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return steps
        if status >> 8 == EXEC_EVENT:
            ptrace(KILL, pid)
            os.waitpid(pid, 0)
            return steps
    ptrace(KILL, pid)
    os.waitpid(pid, 0)
    raise SystemExit(f"{argv}: more than {MOST:,} instructions")
