"""A mesh of two devices trains as one device does, and each holds its part."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models import DecoderConfig, language_model
from ffnlab.models.layer_stack import stack_layers
from ffnlab.train import optimizers, sharding
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.learner import Learner, Parts
from ffnlab.train.loop import Hooks, fit
from ffnlab.train.mesh_config import parse
from ffnlab.train.record import Plan
from ffnlab.train.train_step import init_state, make_step, make_steps
from ffnlab.types import Model
from tests.conftest import ROOT

DECODER = DecoderConfig.tiny(
    layers=1, features=16, heads=2, hidden=24, vocabulary=32, block="swiglu", length=8
)
STACKED = dataclasses.replace(DECODER, layers=2, scan=True)
PLAN = Plan(steps=20, every=10, batch=4)
SHORT = Plan(steps=4, every=4, batch=4)
LAYOUTS = {"data": False, "model": False, "data-fsdp": True}


def layout(name="data", fsdp=None):
    axis, fsdp = name.partition("-")[0], LAYOUTS[name] if fsdp is None else fsdp
    return sharding.make_layout(parse([f"{axis}:2"]), fsdp)


def text(count):
    tokens = np.random.default_rng(count).integers(0, 32, (count, 8), np.int32)
    return {"x/tokens": tokens, "x/mask": np.ones((count, 8), bool), "y": tokens}


DATA = Parts("tokens", text(12), text(6))


def learner(dtype=jnp.float32, config=DECODER):
    """A decoder and an optimizer without divisions by small gradients."""
    model = language_model.causal_lm(config)

    def init(key):
        return jax.tree.map(lambda leaf: leaf.astype(dtype), model.init(key))

    optimizer = optimizers.make("nesterov", 0.1, weight_decay=1e-2, clip=1.0)
    return Learner(Model(init, model.apply), language_model.objective(1.0), optimizer)


@pytest.fixture(scope="module")
def one():
    return fit(learner(), DATA, PLAN)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_mesh_trains_as_one_device(one, name):
    two = fit(learner(), DATA, PLAN, layout=layout(name))
    chex.assert_trees_all_close(two.record.loss, one.record.loss, atol=1e-5)
    chex.assert_trees_all_close(two.record.scores, one.record.scores, atol=1e-5)
    chex.assert_trees_all_close(two.state.params, one.state.params, atol=1e-5)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in arrays(two.state))
    share = held / sum(leaf.nbytes for leaf in arrays(two.state))
    assert share == 1.0 if name == "data" else 0.5 < share < 0.56


def arrays(state):
    return jax.tree.leaves((state.params, state.optimizer))


def test_float64_agrees_to_nine_digits():
    with jax.enable_x64(True):
        runs = [
            fit(learner(jnp.float64), DATA, PLAN, layout=layout(name))
            for name in ("model", "data-fsdp")
        ]
        runs.append(fit(learner(jnp.float64), DATA, PLAN))
        assert runs[0].state.params["norm"]["scale"].dtype == jnp.float64
        for run in runs[:2]:
            chex.assert_trees_all_close(
                jax.device_get(run.state.params),
                jax.device_get(runs[2].state.params),
                atol=1e-9,
                rtol=0,
            )


def test_stacked_layers_train_as_layers_do():
    """On a mesh, in float64, where rounding is no difference."""
    plain = dataclasses.replace(STACKED, scan=False)
    with jax.enable_x64(True):
        one, stack = [
            fit(learner(jnp.float64, config), DATA, SHORT, layout=where)
            for config, where in ((plain, None), (STACKED, layout("data-fsdp")))
        ]
        params, wanted = (jax.device_get(run.state.params) for run in (stack, one))
        wanted = stack_layers(wanted)
        chex.assert_trees_all_close(params, wanted, atol=1e-9, rtol=0)
        chex.assert_trees_all_close(stack.record.loss, one.record.loss, atol=1e-6)


def test_arrays_are_divided_by_their_names():
    shapes = jax.eval_shape(learner().model.init, jax.random.key(0))
    specs = trees.flatten(
        jax.tree.map(lambda s: s.spec, layout("model").shardings(shapes))
    )
    columns, rows = P(None, "model"), P("model", None)
    divided = {
        "embed/tokens/embedding": rows,
        **{
            f"layer_0/{part}/{name}": spec
            for part in (
                "attention/key",
                "attention/query",
                "attention/value",
                "ffn/gate",
                "ffn/up",
            )
            for name, spec in (("kernel", columns), ("bias", P("model")))
        },
        "layer_0/attention/out/kernel": rows,
        "layer_0/ffn/down/kernel": rows,
    }
    whole = {name: spec for name, spec in specs.items() if "model" not in spec}
    assert {name: spec for name, spec in specs.items() if name not in whole} == divided
    assert not [name for name in whole if name.endswith("kernel")]


def test_the_state_of_an_optimizer_is_placed_like_its_parameter():
    params = {"ffn": {"up": {"kernel": jnp.ones((32, 64))}, "scale": jnp.ones(32)}}
    state = optax.adamw(1.0).init(params)
    for fsdp, spec in ((False, P(None, None)), (True, P(None, "data"))):
        placed = layout("data", fsdp).place(state)[0]
        assert placed.mu["ffn"]["up"]["kernel"].sharding.spec == spec
        assert placed.nu["ffn"]["up"]["kernel"].sharding.spec == spec
        assert placed.mu["ffn"]["scale"].sharding.spec == P(None)


def test_no_device_gathers_a_parameter_that_is_divided_along_model():
    split, ours = layout("model"), learner()
    state = split.place(init_state(ours, jax.random.key(0), 0))
    data = jax.device_put(DATA.train, split.replicated)
    outputs = (split.shardings(state), split.replicated)
    steps = jax.jit(make_steps(ours, split), out_shardings=outputs)
    hlo = steps.lower(state, data, np.zeros((1, 4), int)).compile().as_text()
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", hlo)
    specs = jax.tree.map(lambda s: "model" in s.spec, split.shardings(state.params))
    divided = {
        ",".join(map(str, leaf.shape))
        for leaf, is_divided in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(specs), strict=True
        )
        if is_divided
    }
    assert "all-reduce" in hlo and divided
    assert not divided & set(gathered)


def test_stacked_layers_are_gathered_one_by_one():
    """By the scan, one layer at a time, forward and backward."""
    split, ours = layout("data-fsdp"), learner(config=STACKED)
    state = jax.eval_shape(lambda: init_state(ours, jax.random.key(0), 0))
    shardings = split.shardings(state)
    specs = [s.spec for s in jax.tree.leaves(shardings.params["layers"])]
    assert {spec[0] for spec in specs} == {None} and P(None, None, "data") in specs
    batch = {"x": {"tokens": DATA.train["x/tokens"]}, "y": DATA.train["y"]}
    inputs, outputs = (shardings, split.along("data")), (shardings, split.replicated)
    with jax.set_mesh(split.mesh):
        step = jax.jit(make_step(ours), in_shardings=inputs, out_shardings=outputs)
        hlo = step.lower(state, batch).compile().as_text()
    deep = {"layers": {"ffn": {"up": {"kernel": jnp.zeros((64, 16, 18))}}}}
    (place,) = jax.tree.leaves(split.shardings(deep))
    assert place.spec == P(None, None, "data")
    inside, outside = gathers(hlo)
    kernels = [
        leaf.shape[1:]
        for leaf in jax.tree.leaves(state.params["layers"])
        if len(leaf.shape) == 3
    ]
    assert inside == sorted([*kernels, *kernels])
    assert not [shape for shape in outside if shape not in ((32, 16), (16, 32))]


def gathers(hlo):
    """The shapes that are gathered in the bodies of loops, and elsewhere."""
    bodies, shapes = set(re.findall(r"body=%([\w.\-]+)", hlo)), ([], [])
    for part in re.split(r"\n(?=\S)", hlo):
        name = re.match(r"(?:ENTRY )?%([\w.\-]+)", part)
        place = shapes[not (name and name[1] in bodies)]
        for found in re.findall(r"= \w+\[([\d,]+)\]\S* all-gather\(", part):
            place.append(tuple(map(int, found.split(","))))
    return sorted(shapes[0]), shapes[1]


def test_a_checkpoint_is_read_on_another_mesh(tmp_path):
    def train(where):
        hooks = Hooks(Checkpoints(tmp_path))
        return fit(learner(), DATA, PLAN, layout=where, hooks=hooks)

    saved = train(layout("data-fsdp"))
    for where in (layout("model"), None):
        read = train(where)
        assert np.isnan(read.seconds_per_step)  # no step was left
        chex.assert_trees_all_equal(read.state, saved.state)
        chex.assert_trees_all_equal(read.best, saved.best)


def test_meshes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="data:4 is for 4 devices, and there are 2"):
        sharding.make_layout(parse(["data:4"]))
    with pytest.raises(
        InputError, match="data:2 does not divide the batch of 5; data:1"
    ):
        sharding.choose_layout(parse(["data:2"]), False, 5)
    with pytest.raises(InputError, match="replicas:2 divides runs that train together"):
        sharding.choose_layout(parse(["replicas:2"]), False, 4)
    with pytest.raises(InputError, match="fsdp: .* has one device; give mesh=data:N"):
        sharding.choose_layout(parse(["model:2"]), True, 4)
    with pytest.raises(InputError, match=r"dimension 1 of up/kernel, 5; model:1 and"):
        layout("model").shardings({"up": {"kernel": jnp.ones((2, 5))}})


def test_a_single_run_on_a_cpu_has_one_device():
    assert sharding.choose_layout({}, False, 4) is None
    assert sharding.choose_layout({}, True, 4).sizes["data"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "most", "count"), [("float32", 1e-5, 7), ("float64", 1e-9, 19)]
)
def test_any_mesh_of_eight_devices_equals_one(dtype, most, count):
    process = subprocess.run(
        [sys.executable, "-m", "tests.train.meshes", dtype],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert len(found) == count
    assert {name for name, each in found.items() if each["dtypes"] != [dtype]} == set()
    reread = [each for name, each in found.items() if name.startswith("checkpoint")]
    assert [(each["loss"], each["params"]) for each in reread] == [(0.0, 0.0)] * 2
    compared = ("loss",) if dtype == "float32" else ("loss", "params")
    for name in compared:
        differences = {key: each[name] for key, each in found.items()}
        assert {key: d for key, d in differences.items() if not d <= most} == {}
