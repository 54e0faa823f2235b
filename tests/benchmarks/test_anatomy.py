"""The anatomy of a step: instructions have kinds, and their times sum to the step's."""

import doctest
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import anatomy, anatomy_hlo, anatomy_kinds, anatomy_trace
from benchmarks import anatomy_limits as limits
from benchmarks.anatomy import Config
from benchmarks.anatomy_hlo import Frame, Shape
from benchmarks.anatomy_report import Calls
from benchmarks.anatomy_steps import DEFAULTS, STEPS
from benchmarks.anatomy_trace import CALL, Event, Trace
from ffnlab.errors import InputError
from tests.adapt.small import HERE

MODULE = anatomy_hlo.parse(Path(__file__).with_name("anatomy.hlo").read_text("utf-8"))
# Name to kind, operations and bytes.
EXPECTED = {
    "ynn_fusion": (anatomy_kinds.PRODUCTS, 2 * 5 * 4 * 8, 4 * (20 + 32 + 8 + 40)),
    "scores": (anatomy_kinds.ATTENTION, 2 * 5 * 8 * 5, 4 * (40 + 40 + 25)),
    "gemm": (anatomy_kinds.PRODUCTS, 2 * 5 * 8 * 5, 4 * (40 + 40 + 25) + 64),
    "mask_fusion": (anatomy_kinds.DROPOUT, 0, 4 * (2 + 40 + 40)),
    "embedding_fusion": (anatomy_kinds.EMBEDDING, 0, 4 * (20 + 5 + 20)),
    "mean": (anatomy_kinds.NORMS, 0, 4 * (40 + 1 + 5)),
    "transpose_fusion": (anatomy_kinds.COPIES, 0, 4 * (40 + 40)),
    # In place: the new row is read and written, with its two indices.
    "update_fusion": (anatomy_kinds.COPIES, 0, 4 * (4 + 1 + 2 * (4 + 1 + 1))),
}
SMALL = {
    "block": {"batch_size": 16, "features": 4, "hidden": 8},
    "tower": {"members": 2, "batch_size": 4, "features": 4, "hidden": 8, "layers": 1},
    "encoder": {"batch_size": 2, "length": 8, "vocabulary": 16},
    "decoder": {
        "batch_size": 2, "length": 4, "features": 8, "hidden": 8, "layers": 1,
        "heads": 2,
    },
    "feedback": {"batch_size": 1, "length": 8, "hidden": 4},
    "lora": {"batch_size": 2, "length": 8, "vocabulary": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_instructions_have_kinds_operations_and_bytes(name):
    part = anatomy_kinds.describe(MODULE, MODULE.instructions[name])
    assert part[1:] == EXPECTED[name]


def test_instructions_have_shapes_operands_and_lines_of_python():
    dot = MODULE.instructions["dot.1"]
    assert dot.opcode == "dot" and dot.operands == ("p.0", "p.1")
    assert dot.dimensions == (((1,), (0,)), ((), ()))
    assert dot.frames == (
        Frame("/lib/flax/nnx/nn/linear.py", "Linear.__call__"),
        Frame("/lib/ffnlab/nn/attention.py", "attend"),
        Frame("/lib/ffnlab/train/train_step.py", "make_step.<locals>.step"),
    )
    state = MODULE.instructions["state"]
    assert state.shapes[2:] == (Shape("u32", (2,)), Shape("f32", (4, 8)))
    assert MODULE.instructions["while"].called == ("condition", "body")
    assert MODULE.instructions["gemm"].dimensions == (((1,), (1,)), ((), ()))


def test_lines_of_older_texts_are_in_the_metadata():
    text = "HloModule a\n\nENTRY %main () -> f32[] {\n  ROOT %b = f32[] constant(0), "
    text += 'metadata={op_name="c" source_file="nn/dropout.py" source_line=3}\n}'
    frames = anatomy_hlo.parse(text).instructions["b"].frames
    assert frames == (Frame("nn/dropout.py", ""),)


def row(name, start, length, **arguments):
    arguments = {"hlo_module": "jit_steps", "hlo_op": name, **arguments}
    place = {"ph": "X", "pid": 1, "tid": 1}
    return {**place, "name": name, "ts": start, "dur": length, "args": arguments}


def test_an_instruction_of_a_cpu_ends_with_its_last_thread():
    rows = [
        row("dot", 10, 1), row("end: dot", 19, 1), row("dot", 30, 5), row(CALL, 0, 50),
        row("end: dot", 40, 2), row("other", 3, 1, hlo_module="jit_other"),
    ]  # fmt: skip
    trace = anatomy_trace.read(rows, "jit_steps")
    times = [pytest.approx(each[1:]) for each in trace.events]
    assert times == [(10e-6, 20e-6, 11e-6), (30e-6, 42e-6, 35e-6)]
    assert [each.name for each in trace.calls] == [CALL]


def test_an_instruction_that_its_thread_has_left_takes_no_time_from_others():
    events = [Event("copy", 0.0, 8.0, 1.0), Event("dot", 1.0, 6.0)]
    division = anatomy_trace.divide(events, Event(CALL, 0.0, 10.0))
    assert division == ({"copy": 1.0 + 2.0, "dot": 5.0}, 2.0, 0.0)


def test_kernels_of_a_gpu_are_those_on_its_streams():
    names = [
        {"ph": "M", "pid": 1, "name": "process_name",
         "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name",
         "args": {"name": "Stream #7(Compute)"}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_name",
         "args": {"name": "XLA Ops"}},
    ]  # fmt: skip
    kernel = row("a_kernel_of_cublas", 5, 2, hlo_op="gemm")
    rows = [*names, kernel, {**row("gemm", 5, 2), "tid": 2}, row(CALL, 0, 50)]
    assert [each.name for each in anatomy_trace.read(rows, "jit_steps").events] == [
        "gemm"
    ]


def test_profiles_without_the_program_are_refused():
    with pytest.raises(InputError, match="^steps: the profile has no events of jit_a"):
        anatomy_trace.read([row("dot", 0, 1), row(CALL, 0, 2)], "jit_a")


def test_kinds_sum_to_the_whole(monkeypatch):
    monkeypatch.setattr(limits, "seconds_of", lambda product: 1e-6)
    monkeypatch.setattr(limits, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(limits, "fault_seconds", lambda: 1e-6)
    events = [
        Event("while", 0.0, 9.0), Event("ynn_fusion", 1.0, 3.0),
        Event("scores", 2.0, 4.0), Event("mask_fusion", 5.0, 6.0),
        Event("ynn_fusion", 6.0, 8.0), Event("of another program", 8.0, 8.5),
    ]  # fmt: skip
    trace = Trace([Event(CALL, 0.0, 10.0), Event(CALL, 20.0, 40.0)], events)
    result = anatomy.assemble(MODULE, trace, 2, Calls(5.0, 1.0), Calls(6.0, 2.0))
    seconds = {each.kind: each.seconds for each in result.rows}
    assert seconds == {
        anatomy_kinds.PRODUCTS: 1.75, anatomy_kinds.ATTENTION: 0.75,
        anatomy_kinds.DROPOUT: 0.5, anatomy_kinds.OTHER: 0.25,
        anatomy_kinds.WAITING: 1.75,
    }  # fmt: skip
    assert sum(seconds.values()) == result.seconds == 5.0
    assert result.shared == 0.5
    products = result.rows[0]
    assert products.count == 1 and products.alone == 1e-6
    assert products.limit == pytest.approx(320 / (400 / 1e-6))  # by the fastest product


def test_a_repeated_product_stays_in_its_loop():
    shape, dimensions = Shape("f32", (8, 8)), (((1,), (0,)), ((), ()))
    product = limits.Product(shape, shape, "f32", dimensions)
    operand = jax.ShapeDtypeStruct(shape.sizes, jnp.float32)
    loop = jax.jit(limits.repeating(product)).lower(operand, operand, 3)
    text = loop.compile().as_text()
    module = anatomy_hlo.parse(text)
    (loop,) = [e for e in module.instructions.values() if e.opcode == "while"]
    assert [module.flops(each) for each in module.products(loop)] == [2 * 8**3]
    updates = {each.opcode for each in module.inside(loop)}
    assert updates & {"dynamic-update-slice", "scatter", "select"}


def test_a_smoke_run(tmp_path, capsys):
    out, picture = tmp_path / "block.json", tmp_path / "block.png"
    sizes = {**SMALL["block"], "out": str(out), "picture": str(picture)}
    result = anatomy.run(Config(step="block", rounds=1, steps=2, **sizes))
    report = json.loads(out.read_text())
    kinds = {each["kind"]: each for each in report["kinds"]}
    assert {"products", "activations", "dispatch and waiting"} <= kinds.keys()
    whole = sum(each["seconds"] for each in report["kinds"])
    assert whole == pytest.approx(report["seconds"]) == pytest.approx(result.seconds)
    assert kinds["products"]["alone"] > 0 < kinds["products"]["limit"]
    assert report["sizes"]["hidden"] == 8 and report["limits"]["bandwidth"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "whole step" in capsys.readouterr().out


def test_programs_of_a_gpu_are_profiled_without_command_buffers(monkeypatch):
    asked, compile_lowered = [], jax.stages.Lowered.compile

    def record(lowered, compiler_options=None):
        asked.append(compiler_options)
        return compile_lowered(lowered, compiler_options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", record)
    monkeypatch.setattr(limits, "bandwidth", lambda: 1e9)
    for module in (anatomy, limits, anatomy_trace):
        monkeypatch.setattr(module, "uses_gpu", lambda: True)
    config = Config(step="block", rounds=1, steps=1, **SMALL["block"])
    result = anatomy.take_apart(STEPS["block"](config.sizes(), None), config)
    assert asked[:2] == [None, None]  # what is timed without a profile
    assert all(each == {"xla_gpu_enable_command_buffer": ""} for each in asked[2:])
    assert len(asked) > 3 and result.products[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STEPS if name != "block"])
def test_the_other_steps_run(name, monkeypatch):
    monkeypatch.setattr(limits, "seconds_of", lambda product: 1e-6)
    checkpoint = (
        {"checkpoint": str(HERE / "bert")} if name in ("encoder", "lora") else {}
    )
    config = Config(step=name, rounds=1, steps=1, **SMALL[name], **checkpoint)
    result = anatomy.take_apart(STEPS[name](config.sizes(), config.checkpoint), config)
    assert sum(row.seconds for row in result.rows) == pytest.approx(result.seconds)
    kinds = {each.kind for each in result.rows}
    assert anatomy_kinds.PRODUCTS in kinds
    assert (anatomy_kinds.ATTENTION in kinds) == ("heads" in DEFAULTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "lora", "decoder"])
def test_steps_in_half_precision(name):
    checkpoint = str(HERE / "bert") if name != "decoder" else None
    config = Config(step=name, dtype="bfloat16", **SMALL[name], checkpoint=checkpoint)
    step = STEPS[name](config.sizes(), checkpoint)
    traced = jax.make_jaxpr(step.steps)(step.state, step.arrays, step.batches(1))
    products = re.findall(r":(\w+)\[[^=]*= dot_general", str(traced))
    assert products.count("bf16") > products.count("f32")
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(step.state.params)}
    assert dtypes == {"float32"}


def test_wrong_flags_are_refused(tmp_path):
    with pytest.raises(InputError, match="^members: is no size of encoder; its sizes"):
        Config(members=3)
    with pytest.raises(InputError, match="^heads: is that of the checkpoint; leave it"):
        Config(heads=2, checkpoint="a")
    with pytest.raises(InputError, match="^checkpoint: block has none; use encoder or"):
        Config(step="block", checkpoint="a")
    with pytest.raises(InputError, match="^out: .* is in no directory that exists"):
        Config(out=str(tmp_path / "none" / "a.json"))
    with pytest.raises(InputError, match="^picture: .* is a directory; name a file"):
        Config(picture=str(tmp_path))
    config = Config(length=600, checkpoint=str(HERE / "bert"))
    with pytest.raises(InputError, match="^length: 600 exceeds the 16 positions"):
        STEPS["encoder"](config.sizes(), config.checkpoint)


@pytest.mark.parametrize("module", [anatomy_hlo, anatomy_kinds, anatomy_trace, anatomy])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
