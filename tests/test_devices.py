import os

import pytest

from ffnlab.devices import use_all_cores

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
