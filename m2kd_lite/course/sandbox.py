"""What a submission may do while it is graded: a folder, some seconds, some memory, and no network.

It goes as far as a process without privileges can go on its own, against accidents rather than against somebody who means harm. Where the kernel
permits it (Linux), the process lives in namespaces of its own: it has no network, sees no other process, and whatever it started ends with it.
Elsewhere Python itself refuses. It runs with the rights of whoever grades.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000       # linux/sched.h
DIE_WITH_PARENT = 1             # linux/prctl.h
LARGEST_FILE = 64 << 20         # bytes
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")       # of the environment; it may hold secrets
NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
REMOVING = ("os.remove", "os.rmdir", "os.rename", "os.truncate", "shutil.rmtree", "shutil.move")


@dataclass(frozen=True)
class Limits:
    """What one exercise of a submission may use.

    Attributes
    ----------
    seconds : by the clock, and of a processor. Each cell that is not the exercise's own may take a quarter of them.
    memory : bytes, beyond what the library itself takes.
    """

    seconds: float = 30.0
    memory: int = 2 << 30


def confine(folder: Path, limits: Limits) -> None:
    """Restrict this process, for good: its files to `folder`, its time and memory, its output to nothing, its network to none."""
    from m2kd_lite.data import cache            # loads torch
    drawn = str(cache.folder().absolute())
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.setsid()
    _go_on_apart()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=str(folder), TMPDIR=str(folder), M2KD_LITE_CACHE=drawn, OMP_NUM_THREADS="1", MPLBACKEND="agg")
    tempfile.tempdir = None             # read anew from TMPDIR
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    seconds = int(limits.seconds) + 1
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, LARGEST_FILE), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_AS, _address_space() + limits.memory)):
        with contextlib.suppress(ValueError, OSError):          # no more than is allowed already
            resource.setrlimit(kind, (most, most))
    sys.addaudithook(_refuse(folder))
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what is inside when its time is up, as Ctrl-C would, and again for as long as it goes on."""
    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _go_on_apart() -> None:
    """Go on as a grandchild, in namespaces without network and without other processes where the kernel permits it.

    The child in between is process 1 of the namespace. It only waits, because the kernel spares a process 1 the usual ends of a process, and so
    does this one. Those who wait end as the one that goes on does, and it ends when they do; a submission that kills its parent kills itself.
    """
    libc = ctypes.CDLL(None)
    linux = hasattr(libc, "unshare")
    if linux:
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
        _into_namespaces(libc)
    for _ in range(2):
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(code if code >= 0 else 128 - code)
        if linux:
            libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _into_namespaces(libc: ctypes.CDLL) -> None:
    """Namespaces for root; for others, with a user namespace around them; nothing where neither is permitted."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_NETWORK | NEW_PROCESSES) == 0 or libc.unshare(NEW_USER | NEW_NETWORK | NEW_PROCESSES) != 0:
        return
    with contextlib.suppress(OSError):
        for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(line)


def _address_space() -> int:
    """Bytes of address space that this process has now: the library's own."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:                     # not Linux
        return 8 << 30


def _refuse(folder: Path):
    """A hook, which cannot be taken off, that refuses the network, and to remove or rename what lies outside of a folder."""
    inside = os.path.realpath(folder)

    def hook(event: str, arguments: tuple) -> None:
        if event in NETWORK:
            raise PermissionError("no network while grading")
        if event in REMOVING and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(arguments[0])
            relative_to_a_handle = event == "os.remove" and arguments[1] != -1 or event == "os.rmdir" and arguments[1] != -1
            if not relative_to_a_handle and not (os.path.realpath(path) + os.sep).startswith(inside + os.sep):
                raise PermissionError(f"{path}: outside of the submission's own folder")

    return hook
