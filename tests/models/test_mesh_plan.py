import re
import subprocess
import sys

import pytest

from ffnlab.errors import InputError
from ffnlab.models import MeshPlanConfig, plan_mesh
from ffnlab.models.accelerators import ACCELERATORS
from ffnlab.models.mesh_cost import Mesh
from ffnlab.train.mesh_config import parse
from tests.conftest import ROOT


def plan(**options):
    return plan_mesh(MeshPlanConfig(**options))


def test_all_meshes_are_priced_and_the_best_comes_first(capsys):
    result = plan(model="8b", show=4)
    priced = {(cost.mesh.data, cost.mesh.model) for cost in result.costs}
    assert priced == {(64, 1), (32, 2), (16, 4), (8, 8)}  # 8 key and value heads
    assert len(result.costs) == 16
    best = result.costs[0]
    assert best.fits
    fitting = [cost.with_overlap for cost in result.costs if cost.fits]
    assert best.with_overlap == min(fitting)
    assert fitting == sorted(fitting)
    assert all(cost.fits for cost in result.costs[: len(fitting)])
    printed = capsys.readouterr().out
    assert result.advice in printed
    assert "--mesh=data:64 --fsdp --gradient_checkpointing" in result.advice
    assert "12 more meshes" in printed


@pytest.mark.parametrize(
    "options, meshes",
    [
        ({"mesh": "data:16,model:4"}, 4),
        ({"mesh": "data:16,model:4", "fsdp": True}, 2),
        ({"mesh": "model:4,data:16", "fsdp": False, "gradient_checkpointing": True}, 1),
        ({"mesh": "replicas:8,data:8"}, 4),
        ({"devices": 1}, 2),
    ],
)
def test_flags_narrow_what_is_priced(options, meshes, capsys):
    result = plan(**options)
    assert len(result.costs) == meshes
    if "mesh" in options:
        given = Mesh(**parse(options["mesh"].split(",")))
        assert {cost.mesh[:3] for cost in result.costs} == {given[:3]}
    assert "more meshes" not in capsys.readouterr().out


def test_what_is_named_is_what_fits():
    result = plan(model="70b", devices=8)
    assert not result.costs[0].fits
    assert result.advice.startswith("No mesh fits: data:")
    over = [sum(cost.memory.values()) - cost.capacity for cost in result.costs]
    assert over == sorted(over)


def test_a_batch_of_few_sequences_needs_a_model_axis():
    result = plan(model="8b", batch_tokens=32 * 4096)
    assert result.costs[0].mesh[:3] == Mesh(data=32, model=2)[:3]


def test_a_shape_of_ones_own():
    own = {"features": 512, "heads": 8, "key_value_heads": 8, "hidden": 2048}
    config = MeshPlanConfig(**own, block="mlp:relu2")
    assert config.shape.inputs == 1
    assert MeshPlanConfig(block="glu:tanh").shape.inputs == 2
    assert (config.shape.features, config.shape.layers) == (512, 16)
    assert MeshPlanConfig(model="8b").shape.hidden == 14336


def test_kernels_follow_from_the_device():
    assert MeshPlanConfig().setting.flash
    assert not MeshPlanConfig(device="v5e").setting.flash
    assert not MeshPlanConfig(attention="xla").setting.flash
    assert MeshPlanConfig(dtype="float32").setting.itemsize == 4


WRONG = {
    "mesh: data:8,model:4 makes 32 devices, not devices=64; nearest: data:16,model:4": {
        "mesh": "data:8,model:4"
    },
    "mesh: model:48 makes 48 devices, not devices=64; the product of its axes must be "
    "64": {"mesh": "model:48"},
    "mesh: model:16 does not divide key_value_heads=8; model:8 does": {
        "mesh": "data:4,model:16"
    },
    "mesh: model:4 does not divide hidden=6; model:3 and model:6 do": {
        "mesh": "data:16,model:4",
        "hidden": 6,
    },
    "mesh: model:4 does not divide vocabulary=50257; model:1 and model:29 do": {
        "mesh": "data:16,model:4",
        "vocabulary": 50257,
    },
    "mesh: data:64 does not divide sequences=32; data:32 does": {
        "mesh": "data:64",
        "batch_tokens": 32 * 4096,
    },
    "mesh: data:64 does not divide features=96; data:48 and data:96 do": {
        "mesh": "data:64",
        "fsdp": True,
        "features": 96,
    },
    "mesh: 'modle:4' should be AXIS:N": {"mesh": "data:16,modle:4"},
    "mesh: data is given twice": {"mesh": "data:8,data:4"},
    "mesh: 'data:0' should be AXIS:N": {"mesh": "data:0"},
    "mesh: 'data' should be AXIS:N": {"mesh": "data"},
    "device: unknown 'h10'; nearest: h100": {"device": "h10"},
    "model: unknown '9b'; nearest: 8b": {"model": "9b"},
    "block: unknown 'swigul'; nearest: swiglu": {"block": "swigul"},
    "activation: unknown 'rellu'; nearest: relu": {"block": "mlp:rellu"},
    "block: swiglu takes no activation; give it alone": {"block": "swiglu:relu"},
    "devices: 0 should be a number at least 1": {"devices": 0},
    "features: 0 should be a number at least 1": {"features": 0},
    "heads=3 must divide features=2048; nearest: 2, 4": {"heads": 3},
    "key_value_heads=5 must divide heads=32; nearest: 4, 8": {"key_value_heads": 5},
    "batch_tokens=5000 must be whole sequences of max_seq_length=4096; nearest: 4096, "
    "8192": {"batch_tokens": 5000},
    "efficiency: 1.5 should be at most 1": {"efficiency": 1.5},
    "link_efficiency: 0 should be a number above 0": {"link_efficiency": 0},
    "attention: cudnn is for GPUs": {"device": "v4", "attention": "cudnn"},
    "devices: 12 do not fill domains of 8; nearest: 8, 16": {
        "devices": 12,
        "batch_tokens": 12 * 4096,
    },
    "devices: no data and model axes that multiply to 7 divide heads=32": {
        "devices": 7
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused(message):
    with pytest.raises(InputError, match="^" + re.escape(message)) as caught:
        plan(**WRONG[message])
    assert "\n" not in str(caught.value)


def launch(*flags):
    command = [sys.executable, "-m", "experiments.plan_mesh", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_launcher_refuses_in_one_line():
    ended = launch("--mesh=data:8", "--devices=64")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        "error: --mesh: data:8 makes 8 devices, not --devices=64; nearest: data:64\n"
    )


def test_the_launcher_needs_no_jax():
    code = (
        "import sys; sys.modules['jax'] = None; sys.argv = ['plan_mesh', '--show=1']; "
        "import runpy; runpy.run_module('experiments.plan_mesh', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
COMMANDS = re.findall(r"python -m experiments\.plan_mesh (.* --markdown)", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_shows_what_is_printed(command):
    ended = launch(*command.split())
    assert ended.returncode == 0, ended.stderr
    table, details = re.findall(r"(?:^\|.*\n)+", ended.stdout, re.MULTILINE)
    after = PAGE[PAGE.index(command) :]
    assert after[after.index("|") :].startswith(table)
    title = re.search(r"^One device, .*$", ended.stdout, re.MULTILINE)[0]
    if f"{title}:" in after.split("```bash")[0]:
        assert details in after.split("```bash")[0]


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_page_has_the_figures_of_the_devices(name):
    device = ACCELERATORS[name]
    row = re.search(rf"^\| {name} \| .*$", PAGE, re.MULTILINE)[0]
    numbers = [
        float(n) for n in re.findall(r"(?<= )[\d.]+(?=[, ])", row.replace(",", ""))
    ]
    ends = [device.flops / 1e12, device.memory / 1e9, device.memory_bandwidth / 1e9]
    ends += [device.domain, device.link / 1e9, device.network / 1e9]
    assert numbers == pytest.approx(ends, rel=2e-3)


def test_the_page_has_commands():
    assert len(COMMANDS) >= 4
