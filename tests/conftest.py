"""Two devices, so that what is sharded is tested sharded; no silent broadcasting."""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
pytest_plugins = ["tests.tuned"]
# Run by hand.
collect_ignore = ["adapt/make.py", "checkpoints/make.py", "seqeval/make.py"]

# Small models take longer to compile than to run, so they are optimized less, in one
# piece each, since the other cores compile other tests, and by the older emitters where
# XLA still has them, which compile twice as fast. What is set in XLA_FLAGS stays.
FAST_COMPILATION = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_parallel_codegen_split_count": "1",
}
if jax.__version_info__ < (0, 11):
    FAST_COMPILATION["xla_cpu_use_fusion_emitters"] = "false"
for name, value in FAST_COMPILATION.items():
    if name not in os.environ.get("XLA_FLAGS", ""):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --{name}={value}"
        os.environ["XLA_FLAGS"] = flags.strip()
# Tracing makes many objects and leaves few cycles; to look for them at every 700 takes
# a tenth of the time.
gc.set_threshold(100_000, 20, 20)
settings.register_profile("ffnlab", deadline=None)  # a busy machine is no failure
settings.load_profile("ffnlab")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The processes of a test run, and the launchers that they start, share what they
# compile.
OWN = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ffnlab-tests-")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_sessionfinish():
    """Removes what was compiled, after the last process."""
    if OWN:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield


def draw(model, scale=1.0, seed=0):
    """Returns parameters of a model that NumPy draws, so that nothing is compiled."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype),
        shapes,
    )


# Real data, where it is present; a test that needs it is skipped where it is not.
SHARED = Path(os.environ.get("FFNLAB_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture
def write(tmp_path, request):
    """Writes a file of the given text or bytes, named as its test module says."""

    def to_file(content, name=None):
        path = tmp_path / (name or request.module.NAME)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def command(experiment, *flags, path=()):
    """Runs a launcher in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )


_REFUSALS = """
import contextlib, io, json, runpy, sys, traceback
results = []
for flags in json.loads(sys.stdin.read()):
    sys.argv, error, code = ["program", *flags], io.StringIO(), 0
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module("experiments.%s", run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            code = traceback.print_exc()
    results.append([code, error.getvalue()])
print(json.dumps(results))
"""


def refusals(experiment, cases, tmp_path):
    """Returns the exit code and the errors of a launcher for each list of flags.

    All run in one process, in which JAX cannot be imported.
    """
    (tmp_path / "jax.py").write_text("raise SystemExit('JAX was imported')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", _REFUSALS % experiment],
        input=json.dumps([[*map(str, flags)] for flags in cases]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_refusal(result, message):
    """Checks for one clear line and exit code 2."""
    code, error = result
    assert code == 2, error
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1 and "Traceback" not in error


def check_refused(experiment, flags, message, tmp_path):
    """Checks for one clear line and exit code 2, before JAX is imported."""
    (tmp_path / "jax.py").write_text("raise SystemExit('JAX was imported')")
    done = command(experiment, *flags, path=[str(tmp_path)])
    check_refusal((done.returncode, done.stderr), message)
