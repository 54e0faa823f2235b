"""The directory in which launchers keep compiled programs for the next run.

JAX reads and writes the entries. Here is where they are and which of them stay.
"""

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import stat
import sys
import zlib
from importlib import metadata
from pathlib import Path

from ffnlab.escape import terminal

DIRECTORY = "FFNLAB_CACHE_DIR"
MAX_BYTES = 2**31  # of all programs, of all versions and CPUs
_MIN_SECONDS = 0.01  # to compile a program that is kept; loading one takes less
_FREE_BYTES = 2**28  # that the disk must have
_OFF = ("0", "n", "no", "f", "false", "off")  # how JAX reads a variable
_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # how its frames begin
# The lines of /proc/cpuinfo that a program may depend on, of all architectures.
_CPU = ("vendor_id", "cpu family", "model", "model name", "flags", "features")
_CPU += ("cpu implementer", "cpu architecture", "cpu variant", "cpu part", "isa")


def enable() -> None:
    """Makes JAX keep what it compiles in a directory of the user, for the next run.

    It comes before any computation; JAX is not imported for it. It sets environment
    variables, which the processes that this one starts inherit. Nothing is done where
    the user has decided, by `JAX_COMPILATION_CACHE_DIR` or by
    `JAX_ENABLE_COMPILATION_CACHE`. Where the directory cannot be used, nothing is kept
    and a line on standard error says why.
    """
    if _is_decided():
        return
    try:
        parent = directory() / "compiled"
        path = parent / _name()
        _make_private(path)
        tidy(parent)
    except OSError as error:
        where = error.filename or "the cache directory"
        line = f"{where}: {error.strerror}; programs are compiled anew in every run"
        advice = f"{DIRECTORY} names another directory"
        print(terminal(f"warning: {line}; {advice}"), file=sys.stderr, flush=True)
    else:
        _configure(str(path))


def _is_decided() -> bool:
    """Returns whether the user has chosen a directory of JAX's own, or none."""
    jax = sys.modules.get("jax")  # a module of --imports may have configured it
    return (
        "JAX_COMPILATION_CACHE_DIR" in os.environ
        or os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in _OFF
        or (jax is not None and jax.config.jax_compilation_cache_dir is not None)
    )


def directory() -> Path:
    """Returns the cache directory of ffnlab for this user.

    It is that of the environment variable `FFNLAB_CACHE_DIR`, or `ffnlab` where the
    system keeps caches: below `XDG_CACHE_HOME` or `~/.cache`, or `~/Library/Caches` on
    macOS.

    Raises:
      FileNotFoundError: The user has no home directory.
    """
    if given := os.environ.get(DIRECTORY):
        return Path(os.path.abspath(os.path.expanduser(given)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the standard says to ignore others
        base = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    base = os.path.expanduser(base)
    if not os.path.isabs(base):
        raise FileNotFoundError(errno.ENOENT, "there is no home directory", base)
    return Path(base, "ffnlab")


def _name() -> str:
    """Returns a name that differs where programs may not be exchanged.

    A home directory may be that of several machines, and a program that was compiled
    for one CPU may end the process on another.
    """
    versions = [f"{name}-{metadata.version(name)}" for name in ("jax", "jaxlib")]
    return "-".join([*versions, platform.machine(), _cpu()])


def _cpu() -> str:
    """Returns a hash of the CPU and of the number of cores, or of the machine."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    pairs = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]
    facts = [f"{k.strip()}:{v}" for k, _, v in pairs if k.strip().lower() in _CPU]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    facts = [*(facts or [platform.node()]), str(cores or os.cpu_count())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _make_private(path: Path) -> None:
    """Makes a directory that nobody else can write to, since programs come from it.

    Raises:
      OSError: It cannot be made or written to, others can write to it, or the disk is
        full.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    about = path.stat()
    others = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if about.st_uid != os.getuid() or others:
        raise PermissionError(errno.EPERM, "others can write programs to it", str(path))
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written to", str(path))
    if shutil.disk_usage(path).free < _FREE_BYTES:
        raise OSError(errno.ENOSPC, "the disk is nearly full", str(path))


def tidy(parent: Path, max_bytes: int = MAX_BYTES) -> None:
    """Removes damaged entries, and the ones that were not used for longest.

    Several processes may do this at once, while others read and write: an entry that
    is removed too early is compiled again. JAX writes entries in place, so that a
    process that is killed leaves half of one, and never replaces it. Entries are thus
    read once, and made read-only when they are whole.

    Args:
      parent: The directory of the directories of entries.
      max_bytes: The most bytes that are left.

    Raises:
      OSError: An entry cannot be read or removed.
    """
    kept = []
    for folder, _, names in os.walk(parent):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                about = path.lstat()
                if stat.S_ISREG(about.st_mode) and _check(path, about):
                    used = max(about.st_atime, about.st_mtime)
                    kept.append((used, about.st_size, path))
    total = 0
    for _, size, path in sorted(kept, reverse=True):
        total += size
        if total > max_bytes:
            path.unlink(missing_ok=True)


def _check(path: Path, about: os.stat_result) -> bool:
    """Returns whether a file stays: an entry that was not checked before is checked."""
    if path.name.endswith("-cache") and about.st_mode & stat.S_IWUSR:
        if not _is_whole(path.read_bytes()):
            path.unlink()
            return False
        path.chmod(stat.S_IRUSR)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # this was no use
    return True


def _is_whole(content: bytes) -> bool:
    """Returns whether an entry can be decompressed.

    JAX compresses by zstandard where that is installed, and by zlib elsewhere.
    """
    decompress = zlib.decompress
    if content.startswith(_ZSTANDARD):
        try:
            from zstandard import decompress
        except ImportError:
            return True  # of another environment
    try:
        decompress(content)
    except Exception:  # each library has its own
        return False
    return True


def _configure(path: str) -> None:
    """Sets the options of JAX, and their environment variables, unless they are set."""
    values = {
        "jax_compilation_cache_dir": path,
        "jax_persistent_cache_min_compile_time_secs": _MIN_SECONDS,
    }
    for option, value in values.items():
        given = os.environ.setdefault(option.upper(), str(value))
        if "jax" in sys.modules and given == str(value):  # it has read the variables
            sys.modules["jax"].config.update(option, value)
