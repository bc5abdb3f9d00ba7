"""Confine a foreign program: no network, no files but the system's and its own folder.

Linux only, with what the kernel offers to every process: namespaces, where it is allowed to make
them, Landlock (https://docs.kernel.org/userspace-api/landlock.html) for files, and seccomp for
sockets (https://docs.kernel.org/userspace-api/seccomp_filter.html).
"""

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38

# Landlock: the same numbers on all architectures, and rights by their bits.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _RULE_PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_SOCK = 1, 2, 4, 8, 1 << 5, 1 << 9
_ALL_FILES = (1 << 14) - 1  # second version, which lets files move between folders
_READING = _EXECUTE | _READ_FILE | _READ_DIR

# The architecture as the kernel's audit numbers it, and its number of the system call `socket`.
_SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_IO_URING_SETUP, _X32_CALLS, _AF_UNIX = 425, 0x40000000, 1
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001

_TEMP = Path("/tmp")  # noqa: S108 - where LibreOffice makes its sockets, whatever TMPDIR says
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/nix", "/snap",
    "/var/cache/fontconfig", "/var/lib/libreoffice", "/var/spool/libreoffice",
)  # fmt: skip


def confine(folder: Path, program: Path | None = None) -> None:
    """Let this process, for good, reach no network, and of all files the system's and `folder`.

    Call it in a process that is about to become another program.

    Args:
        folder: what it may read and write.
        program: a folder that it may read, where the program is installed.

    Raises:
        OSError: the system does not allow that.
    """
    if sys.platform != "linux":
        raise OSError("programs are confined on Linux only")
    libc = ctypes.CDLL(None, use_errno=True)
    has_namespaces = _make_namespaces(libc)
    is_alone = has_namespaces and _replace_temp(libc, folder)
    if libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION) < 2:
        raise OSError("the kernel has no Landlock, or none that lets files move between folders")
    attributes = struct.pack("=Q", _ALL_FILES)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    for path in (*map(Path, _SYSTEM), *([program] if program else [])):
        _allow(libc, ruleset, path, _READING)
    _allow(libc, ruleset, Path("/dev"), _READING | _WRITE_FILE)
    _allow(libc, ruleset, folder, _ALL_FILES)
    _allow(libc, ruleset, _TEMP, _ALL_FILES if is_alone else _MAKE_SOCK | _REMOVE_FILE)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock is switched off")
    os.close(ruleset)
    if not _forbid_sockets(libc) and not has_namespaces:
        raise OSError("the kernel offers neither seccomp nor namespaces, to close the network")


def leave_network() -> None:
    """Move this process into an empty network of its own, where the system allows that."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _forbid_sockets(libc: ctypes.CDLL) -> bool:
    """Refuse all sockets but those between processes of this machine; return whether that worked.

    A filter of the system calls of this process and its children. Ways around `socket` are closed,
    too: calls of another architecture, and io_uring.
    """
    if platform.machine() not in _SOCKET_CALLS:
        return False
    architecture, socket_call = _SOCKET_CALLS[platform.machine()]
    # Operation, steps to skip if it holds and if not, value. Loaded are the architecture (at byte
    # 4), the call's number (0) and its first argument (16).
    steps = (
        (_LOAD, 0, 0, 4),
        (_IF_EQUAL, 0, 7, architecture),
        (_LOAD, 0, 0, 0),
        (_IF_AT_LEAST, 5, 0, _X32_CALLS),
        (_IF_EQUAL, 4, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 2, socket_call),
        (_LOAD, 0, 0, 16),
        (_IF_EQUAL, 0, 1, _AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    )
    content = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(content))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def _make_namespaces(libc: ctypes.CDLL) -> bool:
    """Leave the network and the table of mounts; return whether the system allowed both."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS) != 0:
            return False
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    return bool(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


def _replace_temp(libc: ctypes.CDLL, folder: Path) -> bool:
    """Let this process see a folder of its own as /tmp; `folder` keeps its path."""
    private = folder / "tmp"
    private.mkdir(exist_ok=True)
    here = os.open(folder, os.O_PATH)
    if libc.mount(os.fsencode(private), os.fsencode(_TEMP), None, _MS_BIND, None) != 0:
        return False
    if folder.is_relative_to(_TEMP):
        folder.mkdir(parents=True)
        libc.mount(b"/proc/self/fd/%d" % here, os.fsencode(folder), None, _MS_BIND, None)
    os.close(here)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    with suppress(FileNotFoundError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)
