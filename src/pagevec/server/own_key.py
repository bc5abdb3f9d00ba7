"""The key of a service that was given none: made once, kept in the user's state folder."""

import errno
import ipaddress
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_state_path
from pydantic import SecretStr

from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

_FORM = re.compile(rb"[A-Za-z0-9_-]{32}\n")  # what `secrets.token_urlsafe(24)` makes
_OTHERS_ACCESS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ADVICE = "; delete it, and the next start makes another"

# Windows has neither modes nor descriptors of folders: there the access list of the user's profile
# keeps others out, and files are named by their whole path.
_HAS_MODES = hasattr(os, "geteuid") and os.open in os.supports_dir_fd
# O_NONBLOCK: a FIFO would be waited for. O_BINARY: no other line ends than those written.
_NO_TRAPS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class OwnKey:
    """A key that the service made, at this start or an earlier one.

    Attributes:
        key: the key.
        file: where it is kept between starts.
        fault: why it is not kept, and so lasts for this start only; None where it is kept.
    """

    key: str = field(repr=False)
    file: Path
    fault: str | None = None


def ensure_key(settings: Settings) -> tuple[Settings, OwnKey | None]:
    """Give the service a key of its own if none is set, which is allowed on loopback only.

    Returns:
        The settings with a key, and that key if the service made it.

    Raises:
        ConfigurationError: no key is set, and other hosts could reach the service.
    """
    if settings.keys:
        return settings, None
    if not is_loopback(settings.host):
        raise ConfigurationError(
            "SERVICE_API_KEY is not set, and other hosts can reach the service "
            f"({settings.cite('host')}): set a key (several with commas; or "
            "SERVICE_API_KEY_FILE), or listen on 127.0.0.1"
        )
    own = own_key(_state_folder())
    return settings.model_copy(update={"service_api_key": SecretStr(own.key)}), own


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _state_folder() -> Path:
    try:
        return user_state_path("pagevec")
    except RuntimeError:  # the user has no home, as in many containers
        return Path()


def own_key(folder: Path) -> OwnKey:
    """Return the key that is kept in `folder`, an absolute path; the first start makes it.

    Starts at the same time agree on one key. What others could have written or can read is not
    trusted, and not touched.
    """
    file = folder / "key"
    try:
        return OwnKey(_kept_key(file), file)
    except OSError as error:
        is_link = file.is_symlink() or file.parent.is_symlink()
        reason = "a symbolic link is not followed" if is_link else error.strerror
        fault = f"{file} cannot be used: {reason}"
    except ValueError as error:
        fault = str(error)
    return OwnKey(_new_key(), file, fault)


def _new_key() -> str:
    return secrets.token_urlsafe(24)


def _kept_key(file: Path) -> str:
    if not file.is_absolute():
        raise ValueError("there is no home folder to keep it in")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _HAS_MODES:
        return _read_or_make(file, None)
    # What happens below happens in the folder that is checked here, wherever its name leads then.
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check(file.parent, os.fstat(folder), _OTHERS_WRITE)
        return _read_or_make(file, folder)
    finally:
        os.close(folder)


def _read_or_make(file: Path, folder: int | None) -> str:
    with suppress(FileNotFoundError):
        return _read(file, folder)
    _write(file, folder)
    return _read(file, folder)


def _read(file: Path, folder: int | None) -> str:
    if folder is None and (file.is_symlink() or file.parent.is_symlink()):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    descriptor = os.open(_name(file, folder), os.O_RDONLY | _NO_TRAPS | _BINARY, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file} is not a file{_ADVICE}")
        if folder is not None:
            _check(file, status, _OTHERS_ACCESS)
        content = opened.read(100)
    if not _FORM.fullmatch(content):
        raise ValueError(f"{file} holds no key that pagevec made{_ADVICE}")
    return content.decode().strip()


def _write(file: Path, folder: int | None) -> None:
    """Write a new key, unless another start is faster: the file is complete when it appears."""
    draft = _name(file.with_name(f"{file.name}.{secrets.token_hex(8)}"), folder)
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
    descriptor = os.open(draft, how, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(f"{_new_key()}\n".encode())
            opened.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, _name(file, folder), src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.unlink(draft, dir_fd=folder)


def _name(file: Path, folder: int | None) -> str:
    """Return what `file` is called from the open folder that it is in, or from anywhere."""
    return str(file) if folder is None else file.name


def _check(path: Path, status: os.stat_result, forbidden: int) -> None:
    """Refuse a path that belongs to another user, or whose mode has a bit of `forbidden`."""
    if status.st_uid != os.geteuid():
        raise ValueError(f"{path} belongs to another user")
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"{path} is open to other users (mode {mode:o}){_ADVICE}")
