import subprocess
import sys

import pytest

from ffnlab import InputError
from ffnlab.pretrain import Config
from tests.conftest import ROOT

ADDRESS = {"coordinator": "node0:1234", "out": "run"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"processes": 2}, "processes: only for several processes"),
        ({"process": 0}, "process: only for several processes"),
        (ADDRESS, "processes: coordinator=HOST:PORT needs processes=N"),
        ({**ADDRESS, "process": 0}, "processes: coordinator=HOST:PORT needs"),
        ({**ADDRESS, "processes": 2}, "process: coordinator=HOST:PORT needs"),
        ({**ADDRESS, "processes": 2, "process": 2}, "process: 2 should be below"),
        ({**ADDRESS, "processes": 0, "process": 0}, "processes: 0 should be a number"),
        ({**ADDRESS, "processes": 2, "process": -1}, "process: -1 should be a number"),
        ({"coordinator": "auto", "process": 0, "out": "run"}, "process: coordinator="),
        ({"coordinator": "auto"}, "out: several processes need out=DIRECTORY"),
    ],
)
def test_flags_that_do_not_fit(fields, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Config(**fields)


@pytest.mark.parametrize(
    "address", ["node0", "node0:", ":1234", "node0:0", "node0:65536", "a b:1", "a:1x"]
)
def test_addresses_that_cannot_be(address):
    with pytest.raises(InputError, match="^coordinator: .* should be HOST:PORT"):
        Config(coordinator=address, processes=2, process=0, out="run")


@pytest.mark.parametrize("address", ["node0:1234", "10.0.0.1:1", "[::1]:65535"])
def test_addresses(address):
    Config(coordinator=address, processes=2, process=1, out="run")


def test_they_are_no_flags_that_repeat_a_run():
    from ffnlab import options

    config = Config(**ADDRESS, processes=2, process=1)
    assert options.to_flags(config) == options.to_flags(Config())


def test_wrong_flags_are_refused_before_jax():
    code = (
        "import sys\nfrom ffnlab.pretrain import Config\n"
        "try:\n    Config(processes=2)\nexcept ValueError:\n    pass\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
