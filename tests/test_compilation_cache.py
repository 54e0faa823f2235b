import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import jax
import pytest

from ffnlab import compilation_cache
from tests.conftest import ROOT, command

DIR = "JAX_COMPILATION_CACHE_DIR"
SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """An environment of its own, and JAX as if it were not imported."""
    monkeypatch.setattr(os, "environ", {"FFNLAB_CACHE_DIR": str(tmp_path / "cache")})
    monkeypatch.delitem(sys.modules, "jax")
    return os.environ


# Where programs are kept.


@pytest.mark.parametrize(
    ("variables", "platform", "expected"),
    [
        ({"FFNLAB_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "linux", "/a"),
        ({"FFNLAB_CACHE_DIR": "~/a", "HOME": "/h"}, "linux", "/h/a"),
        ({"FFNLAB_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "linux", "/b/ffnlab"),
        ({"XDG_CACHE_HOME": "b", "HOME": "/h"}, "linux", "/h/.cache/ffnlab"),
        ({"HOME": "/h"}, "linux", "/h/.cache/ffnlab"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Caches/ffnlab"),
    ],
)
def test_the_directory_is_the_users(monkeypatch, variables, platform, expected):
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(sys, "platform", platform)
    assert compilation_cache.directory() == Path(expected)


def test_jax_finds_the_directory_in_the_environment(environment, tmp_path):
    compilation_cache.enable()
    path = Path(environment[DIR])
    assert path.parent == tmp_path / "cache" / "compiled" and path.is_dir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert f"jax-{jax.__version__}" in path.name
    assert environment[SECONDS] == "0.01"


def test_a_jax_that_is_imported_is_told(environment, monkeypatch):
    class Config:
        jax_compilation_cache_dir = None

        def update(self, option, value):
            setattr(self, option, value)

    monkeypatch.setitem(sys.modules, "jax", type("Jax", (), {"config": Config()}))
    environment[SECONDS] = "2"
    compilation_cache.enable()
    assert sys.modules["jax"].config.jax_compilation_cache_dir == environment[DIR]
    assert vars(sys.modules["jax"].config).keys() == {"jax_compilation_cache_dir"}


@pytest.mark.parametrize(
    "variables",
    [{DIR: "/own"}, {DIR: ""}, {"JAX_ENABLE_COMPILATION_CACHE": "False"}],
)
def test_what_is_decided_by_variables_of_jax_is_kept(environment, tmp_path, variables):
    environment.update(variables)
    before = dict(environment)
    compilation_cache.enable()
    assert environment == before and not (tmp_path / "cache").exists()


def test_a_directory_that_was_set_in_jax_is_kept(environment, monkeypatch):
    before = dict(environment)
    monkeypatch.setitem(sys.modules, "jax", jax)  # as tests/conftest.py sets it
    compilation_cache.enable()
    assert environment == before


def test_programs_of_another_cpu_or_version_are_not_loaded(environment, monkeypatch):
    versions = iter(["1"] * 10 + ["2"] * 2)
    cpus = iter(["flags: avx2", "flags: avx2 avx512f", "", "Features : sve"])
    monkeypatch.setattr(compilation_cache.metadata, "version", lambda _: next(versions))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: next(cpus))
        names = [compilation_cache._name() for _ in range(4)]
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags: avx2")
    assert compilation_cache._name() == names[0]
    names.append(compilation_cache._name())
    assert len(set(names)) == 5


# A directory that cannot be used.


def refuse(environment, capsys, reason):
    """Checks for one line on standard error, and that nothing is kept."""
    compilation_cache.enable()
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: ") and reason in printed.err
    assert printed.err.count("\n") == 1 and not printed.out
    assert "FFNLAB_CACHE_DIR names another directory" in printed.err
    assert not {DIR, SECONDS} & environment.keys()


def test_a_file_in_the_place_is_a_warning(environment, capsys, tmp_path):
    (tmp_path / "cache").write_text("")
    refuse(environment, capsys, "Not a directory")


def test_a_disk_that_is_nearly_full_is_a_warning(environment, capsys, monkeypatch):
    usage = shutil._ntuple_diskusage(2**40, 2**40, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refuse(environment, capsys, "the disk is nearly full")


def test_a_disk_that_cannot_be_written_to_is_a_warning(
    environment, capsys, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests
    refuse(environment, capsys, "it cannot be written to")


def test_a_directory_that_others_can_write_to_is_a_warning(environment, capsys):
    compilation_cache.enable()
    path = Path(environment.pop(DIR))
    del environment[SECONDS]
    path.chmod(0o770)
    refuse(environment, capsys, "others can write programs to it")


def test_a_user_without_a_home_is_a_warning(environment, capsys, monkeypatch):
    environment.clear()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    refuse(environment, capsys, "there is no home directory")


# Which programs stay.


def entry(folder, name, seconds=0, size=100):
    """Writes an entry that was used some seconds after 1970, and returns its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-cache"
    path.write_bytes(zlib.compress(os.urandom(size)))
    os.utime(path, (seconds, seconds))
    return path


def names(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_damaged_entries_are_removed(tmp_path):
    whole, cut, empty, flipped = (entry(tmp_path, name) for name in "abcd")
    cut.write_bytes(cut.read_bytes()[:-20])
    empty.write_bytes(b"")
    content = bytearray(flipped.read_bytes())
    content[50] ^= 4
    flipped.write_bytes(content)
    (tmp_path / "other").write_bytes(b"")  # not an entry
    compilation_cache.tidy(tmp_path)
    assert names(tmp_path) == {whole.name, "other"}


def test_entries_of_zstandard_are_checked_where_it_is_installed(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    whole, cut = entry(tmp_path, "a"), entry(tmp_path, "b")
    content = zstandard.ZstdCompressor().compress(os.urandom(100))
    whole.write_bytes(content)
    cut.write_bytes(content[:-20])
    compilation_cache.tidy(tmp_path)
    assert names(tmp_path) == {whole.name}


def test_an_entry_is_checked_once(tmp_path, monkeypatch):
    entry(tmp_path, "a")
    compilation_cache.tidy(tmp_path)
    monkeypatch.setattr(compilation_cache, "_is_whole", None)  # a call is an error
    compilation_cache.tidy(tmp_path)
    assert names(tmp_path) == {"a-cache"}


def test_the_entries_that_were_not_used_for_longest_are_removed(tmp_path):
    """Over all versions, and by the later one of both times."""
    old, new = entry(tmp_path / "jax-1", "old", 1), entry(tmp_path / "jax-2", "new", 3)
    read = entry(tmp_path / "jax-1", "read", 2)
    os.utime(read, (4, 1))
    size = old.stat().st_size
    compilation_cache.tidy(tmp_path, 3 * size)
    assert names(tmp_path) == {old.name, new.name, read.name}
    compilation_cache.tidy(tmp_path, 2 * size)
    assert names(tmp_path) == {new.name, read.name}
    compilation_cache.tidy(tmp_path, 2 * size - 1)
    assert names(tmp_path) == {read.name}


def test_an_entry_that_another_process_removes_is_no_error(tmp_path, monkeypatch):
    paths = [entry(tmp_path, name) for name in "ab"]

    def remove(content):
        for path in paths:
            path.unlink(missing_ok=True)
        return True

    monkeypatch.setattr(compilation_cache, "_is_whole", remove)
    compilation_cache.tidy(tmp_path)
    assert not names(tmp_path)


def test_links_and_pipes_are_left_alone(tmp_path):
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "a-cache").symlink_to(target)
    os.mkfifo(tmp_path / "compiled" / "b-cache")
    compilation_cache.tidy(tmp_path / "compiled", 0)
    assert target.exists() and len([*(tmp_path / "compiled").iterdir()]) == 2


# With JAX, in processes of their own.

PROGRAMS = """
import json, sys
from ffnlab import compilation_cache
compilation_cache.enable()
import jax, jax.numpy as jnp
counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    if event.startswith("/jax/compilation_cache/cache_"):
        counts[event.rpartition("/")[2]] += 1
jax.monitoring.register_event_listener(count)
key = jax.random.key(0)
print("ready", flush=True)
sys.stdin.readline()
counts = {"cache_hits": 0, "cache_misses": 0}
x = jax.jit(lambda key: jax.random.normal(key, (20, 20)))(key)
for n in range(8):
    x = jax.jit(lambda x: jnp.tanh(x @ x + n) / n if n else jnp.sin(x))(x)
digest = float(jnp.abs(x).sum()).hex()
print(json.dumps([digest, counts["cache_hits"], counts["cache_misses"]]))
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The cache directory of the processes of a test."""
    for name in (DIR, SECONDS):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FFNLAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


def start():
    """Starts a process that waits for a line, and then runs some programs."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAMS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Programs of any time are kept: how long one takes differs between processes.
        env={**os.environ, "PYTHONPATH": str(ROOT), SECONDS: "0"},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(*processes):
    """Returns digest, hits and misses of processes that run at once, and warnings."""
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300) for process in processes]
    assert not any(process.returncode for process in processes), outputs
    return [(*json.loads(out), error) for out, error in outputs]


@pytest.mark.slow
def test_processes_share_programs_and_survive_damage(cache):
    together = end(*(start() for _ in range(4)))
    ((digest, hits, misses, error),) = end(start())
    assert hits >= 9 and misses == 0 and not error
    assert {digest} == {each[0] for each in together}
    process = start()
    entries = sorted(cache.rglob("*-cache"))
    for n, path in enumerate(entries):  # after the start, so that JAX reads them
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(content[: len(content) // 2] if n % 2 else content)
    ((again, hits, _, error),) = end(process)
    assert again == digest and hits == 0
    assert "Error reading persistent compilation cache entry" in error
    ((again, hits, misses, error),) = end(start())  # which removes them
    assert (again, hits, error) == (digest, 0, "") and misses >= 9
    ((again, hits, misses, error),) = end(start())
    assert (again, misses, error) == (digest, 0, "")


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_directory_that_works(cache):
    process = start()
    process.stdin.write("go\n")
    process.stdin.flush()
    while not [*cache.rglob("*-cache")]:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    newest = max(cache.rglob("*-cache"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])  # as if it had been at that
    ((digest, hits, _, error),) = end(start())
    ((again, _, misses, warm), (*_, other)) = end(start(), start())
    assert again == digest and misses == 0 and not error + warm + other


@pytest.mark.slow
def test_a_run_is_the_same_with_kept_programs(cache, tmp_path):
    flags = ["--data=iris", "--blocks=mlp:relu", "--seeds=2", "--steps=10"]
    flags += ["--learning_rates=0.01", "--layers=1"]
    runs = []
    for name in ("cold", "warm"):
        done = command("compare", *flags, f"--out={tmp_path / name}")
        assert done.returncode == 0 and not done.stderr.count("warning"), done.stderr
        assert done.stdout.splitlines()[-1].startswith("compiling took ")
        lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
        skipped = ("microseconds_per_step", "compile_seconds", "checksum")
        each = [json.loads(line) for line in lines]
        runs.append([{k: v for k, v in r.items() if k not in skipped} for r in each])
        best = sorted(p for p in (tmp_path / name / "best").rglob("*") if p.is_file())
        runs[-1] += [path.read_bytes() for path in best if path.suffix != ".sha256"]
        count = len(names(cache))
    assert runs[0] == runs[1] and len(runs[0]) > 2 and count > 0


def test_the_library_changes_no_configuration_of_jax(cache):
    code = "import ffnlab, ffnlab.sweep, ffnlab.train, jax; ffnlab.fit, ffnlab.match"
    code += "; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "None\n", done.stderr
    assert not cache.exists()
