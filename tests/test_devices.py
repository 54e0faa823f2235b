import dataclasses
import os
import sys

import jax
import pytest

from ffnlab import devices, options
from ffnlab.devices import use_all_cores
from ffnlab.errors import InputError
from ffnlab.report import run_directory
from tests.conftest import check_refusal, check_refused, command

NAME = "JAX_NUM_CPU_DEVICES"


@pytest.fixture
def environment(monkeypatch):
    """An environment of its own, in which the number of devices is not set."""
    monkeypatch.setattr(os, "environ", {})
    return os.environ


def test_there_is_a_device_for_each_core_that_the_process_may_use(
    environment, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    use_all_cores()
    assert environment[NAME] == "3"


@pytest.mark.parametrize(("cores", "devices"), [(8, "8"), (None, "1")])
def test_systems_without_affinity_use_all_cores(
    environment, monkeypatch, cores, devices
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    use_all_cores()
    assert environment[NAME] == devices


def test_a_number_that_is_set_already_is_kept(environment):
    environment[NAME] = "1"
    use_all_cores()
    assert environment[NAME] == "1"


# The kind of device.


@pytest.fixture
def platforms():
    """Restores the platforms of JAX after a test."""
    yield jax.config.jax_platforms
    assert jax.default_backend() == "cpu"


def test_the_device_that_is_used_already_can_be_selected(environment, platforms):
    devices.select("cpu")
    assert jax.config.jax_platforms == "cpu"
    jax.config.update("jax_platforms", platforms)
    environment["JAX_PLATFORMS"] = "cpu"
    devices.select(None)


@pytest.mark.parametrize(
    ("name", "install"),
    [("gpu", "jax[cuda13]"), ("cuda", "jax[cuda13]"), ("tpu", "jax[tpu]")],
)
def test_a_device_that_is_not_there_is_one_clear_line(
    environment, platforms, name, install
):
    with pytest.raises(InputError) as caught:
        devices.select(name)
    assert str(caught.value) == (
        f"device: {name}: JAX found only cpu devices, or uses them in this process "
        f'already; install JAX for it (pip install "{install}"), or choose another of '
        "cpu, gpu, tpu, cuda"
    )
    assert jax.config.jax_platforms == platforms


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no libtpu.so (set JAX_PLATFORMS='')"), "no libtpu.so"),
        (AssertionError(), "JAX found none"),
    ],
)
def test_the_environment_is_checked_too(
    environment, platforms, monkeypatch, error, reason
):
    def fail():
        raise error

    environment["JAX_PLATFORMS"] = "tpu,cpu"
    with pytest.raises(InputError, match="^JAX_PLATFORMS=tpu,cpu: JAX found only cpu"):
        devices.select(None)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", fail)
        with pytest.raises(InputError, match=f"^JAX_PLATFORMS=tpu,cpu: {reason}; inst"):
            devices.select(None)
    devices.select("cpu")  # the flag goes before it
    jax.config.update("jax_platforms", platforms)


def test_nothing_is_imported_where_nothing_is_asked(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)  # an import is an error
    devices.select(None)
    environment["JAX_PLATFORMS"] = "cpu"
    devices.select(None)


class Gpu:
    platform, device_kind = "gpu", "NVIDIA H100"


def test_devices_are_described_in_one_line(monkeypatch):
    assert devices.describe() == "2 CPU devices, float32"
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu()])
    assert devices.describe("bfloat16") == "1 GPU device (NVIDIA H100), bfloat16"


@dataclasses.dataclass(frozen=True)
class Config(options.RunOptions):
    """What a run is."""

    steps: int = options.option(1, "Steps.")


def test_a_run_says_where_it_is_and_can_go_on_elsewhere(tmp_path, capsys):
    """The flags of a run are those of before, with and without a device."""
    first, again = Config(device="cpu"), Config(resume=True, out="o")
    with pytest.raises(KeyboardInterrupt) as caught:  # noqa: SIM117
        with run_directory.open_run(tmp_path / "run", first, False):
            raise KeyboardInterrupt
    assert caught.value.__notes__[0].endswith("/run --resume --device=cpu")
    assert (tmp_path / "run" / "flags").read_text() == "--steps=1\n"
    with run_directory.open_run(tmp_path / "run", again, True):
        pass
    assert capsys.readouterr().out == "2 CPU devices, float32\n" * 2


def test_a_launcher_refuses_a_device_before_any_work(tmp_path):
    flags = ["--quick", f"--out={tmp_path / 'run'}"]
    done = command("from_scratch", "--device=gpu", *flags)
    message = "--device: gpu: JAX found only cpu devices"
    check_refusal((done.returncode, done.stderr), message)
    assert not (tmp_path / "run").exists() and not done.stdout
    check_refused("exchange", ["--device=gup"], "unknown 'gup'; nearest: gpu", tmp_path)
