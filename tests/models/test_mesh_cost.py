import collections
import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from ffnlab.models.accelerators import ACCELERATORS
from ffnlab.models.decoder_costs import SIZES, DecoderShape
from ffnlab.models.mesh_cost import (
    Mesh,
    Setting,
    local_parameters,
    mesh_cost,
    parameter_bytes,
)
from ffnlab.train.mesh_config import AXES
from ffnlab.train.sharding import Layout, constrain, make_layout
from tests.models.costed_decoder import SIZE, decoder

BATCH, LENGTH = 4, 48
SHAPE = DecoderShape(**SIZE, length=LENGTH)
H100, V5E = ACCELERATORS["h100"], ACCELERATORS["v5e"]


@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize("data, model", [(1, 1), (2, 2), (8, 1), (4, 4)])
def test_parameters_of_a_device_are_those_of_its_shards(data, model, fsdp):
    size = {"features": 1024, "heads": 16, "key_value_heads": 4, "hidden": 2816}
    _, params = decoder(**size)
    mesh = AbstractMesh((1, data, model), AXES)
    shardings = Layout(mesh, fsdp).shardings(params)
    shards = jax.tree.map(
        lambda x, sharding: sharding.shard_shape(x.shape), params, shardings
    )
    stored = sum(
        map(math.prod, jax.tree.leaves(shards, is_leaf=lambda x: isinstance(x, tuple)))
    )
    shape = DecoderShape(**{**SIZE, **size}, length=LENGTH)
    mesh = Mesh(data=data, model=model, fsdp=fsdp)
    assert local_parameters(shape, mesh) == stored
    bytes_of = parameter_bytes(Setting(shape, H100, BATCH * LENGTH), mesh)
    assert bytes_of["parameters"] == 6 * stored
    assert bytes_of["gradients"] + bytes_of["moments"] == 12 * stored


def collectives(kind, data, model, fsdp=False, recompute=False):
    """Returns the shapes of what a compiled gradient exchanges by some operation."""
    lm, params = decoder(remat=recompute)
    layout = make_layout({"replicas": 1, "data": data, "model": model}, fsdp)
    shardings = layout.shardings(params)

    def loss(params, tokens):
        logits, _ = lm.apply(params, {"tokens": constrain(layout, tokens)})
        logs = jax.nn.log_softmax(logits)
        return -(jax.nn.one_hot(tokens, SIZE["vocabulary"]) * logs).mean()

    step = jax.jit(
        jax.grad(loss),
        in_shardings=(shardings, layout.replicated),
        out_shardings=shardings,
    )
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    with jax.set_mesh(layout.mesh):
        text = step.lower(params, tokens).compile().as_text()
    lines = re.findall(rf"= ([^\n]*?) {kind}(?:-start)?\(", text)
    shapes = [each for line in lines for each in re.findall(r"\[([\d,]*)\]", line)]
    return collections.Counter(
        tuple(int(size) for size in shape.split(",") if size) for shape in shapes
    )


def total(shapes):
    """Returns the numbers of arrays that are no scalars."""
    return sum(math.prod(shape) * times for shape, times in shapes.items() if shape)


@pytest.mark.parametrize("recompute, in_layer", [(False, 4), (True, 5)])
def test_the_model_axis_sums_what_xla_sums(recompute, in_layer):
    summed = collectives("all-reduce", 1, 2, recompute=recompute)
    count = summed[BATCH, LENGTH, SIZE["features"]]
    setting = Setting(SHAPE, H100, BATCH * LENGTH, itemsize=4)
    cost = mesh_cost(setting, Mesh(1, 1, 2, recompute=recompute))
    array = 4 * BATCH * LENGTH * SIZE["features"]
    sums = cost.sent["activations", "NVLink"] / array  # two devices send an array each
    assert sums == in_layer * SIZE["layers"] + 2
    # XLA for CPUs sums the gradients of queries, keys and values before it adds them,
    # and those of gate and up.
    assert count in (sums, sums + 3 * SIZE["layers"])


def test_the_data_axis_sums_the_gradients():
    numbers = total(collectives("all-reduce", 2, 1))
    cost = mesh_cost(Setting(SHAPE, H100, BATCH * LENGTH, itemsize=4), Mesh(1, 2, 1))
    sent = cost.sent["weights", "NVLink"] / 4
    assert sent == SHAPE.parameters
    # The gradients of the embeddings and of the head may be added afterwards.
    assert numbers in (sent, sent + SHAPE.embeddings)


def test_fsdp_gathers_the_weights_of_layers_forward_and_backward():
    gathered = collectives("all-gather", 2, 1, fsdp=True, recompute=True)
    _, params = decoder()
    shapes = {x.shape for x in jax.tree.leaves(params["layer_0"]) if x.ndim == 2}
    numbers = total({shape: gathered[shape] for shape in shapes})
    assert numbers == 2 * SIZE["layers"] * SHAPE.layer_matrices


def price(name="8b", accelerator=H100, mesh=Mesh(1, 64, 1), tokens=2**20, **options):  # noqa: B008
    shape = DecoderShape(**SIZES[name], length=4096)
    return mesh_cost(Setting(shape, accelerator, tokens, **options), mesh)


def test_fsdp_moves_half_as_much_again():
    plain, fsdp = price(), price(mesh=Mesh(1, 64, 1, fsdp=True))
    for link in ("NVLink", "network"):
        assert fsdp.sent["weights", link] == 1.5 * plain.sent["weights", link]
    assert fsdp.memory["moments"] == plain.memory["moments"] / 64


def test_the_model_axis_divides_work_but_not_messages():
    one, two = price(mesh=Mesh(1, 64, 1)), price(mesh=Mesh(1, 32, 2))
    assert two.flops == one.flops
    assert two.memory["logits"] == one.memory["logits"]  # twice the tokens, half of V
    four = price(mesh=Mesh(1, 16, 4))
    sent = [cost.sent["activations", "NVLink"] for cost in (two, four)]
    assert sent[1] / sent[0] == pytest.approx(2 * (3 / 4) / (1 / 2))


def test_recomputation_costs_operations_and_saves_memory():
    kept, again = price(), price(mesh=Mesh(1, 64, 1, recompute=True))
    assert again.model_flops == kept.model_flops < again.flops
    assert again.memory["activations"] < 0.1 * kept.memory["activations"]
    assert again.utilization(1.0) == kept.utilization(1.0)


def test_times_by_hand():
    cost = price("1b", V5E, Mesh(1, 16, 16, fsdp=True), efficiency=0.5)
    shape = DecoderShape(**SIZES["1b"], length=4096)
    forward = 2 * (shape.matrices - shape.embeddings) + 4 * 4096 * 2048 * 16
    flops = 3 * (forward + 2 * 128256 * 2048) * 2**20 / 256
    assert cost.flops == pytest.approx(flops)
    assert cost.seconds["products"] == pytest.approx(flops / (0.5 * 197e12))
    weights = 3 * 2 * (shape.matrices / 16 + shape.norms) * 15 / 16
    assert cost.seconds["weights over ICI"] == pytest.approx(weights / (0.8 * 100e9))
    sums = 2 * (4 * 16 + 2) * 2 * 2**16 * 2048 * 15 / 16
    assert cost.seconds["activations over ICI"] == pytest.approx(sums / (0.8 * 100e9))
    stored = (shape.matrices / 16 + shape.norms) / 16
    assert cost.seconds["update"] == pytest.approx(28 * stored / 819e9)


@pytest.mark.parametrize("recompute", [False, True])
def test_memory_and_its_traffic_by_hand(recompute):
    cost = price("1b", H100, Mesh(1, 64, 1, True, recompute), tokens=2**20)
    layer = 2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 8192
    table, tokens = 128256 * 2048, 2**20 / 64
    layers = 3 if recompute else 17
    assert cost.memory["gathered"] == 2 * (layers * layer + 2 * table)
    inside = 2 * (14 * 2048 + 8) + 2 * (2 * 2048 + 2 * 512 + 2 * 8192) + 4 * 32
    last = 14 * 2048 + 8
    inputs = 16 * 2 * 2048 if recompute else 0
    kept = inputs + last + inside * (1 if recompute else 16)
    assert cost.memory["activations"] == tokens * kept
    assert cost.memory["logits"] == tokens * 128256 * (2 + 4 + 2)
    weights = (4 if recompute else 3) * 2 * (16 * layer + table)
    moved = inputs + 16 * inside + 128256 * 8
    assert cost.read == weights + 2 * tokens * moved


def test_overlap_hides_weights_but_not_sums():
    cost = price(mesh=Mesh(1, 32, 2, fsdp=True))
    named = cost.seconds
    waited = named["update"] + named["activations over NVLink"]
    assert cost.bound == "products"
    assert cost.with_overlap == pytest.approx(named["products"] + waited)
    weights = named["weights over NVLink"] + named["weights over network"]
    assert cost.without_overlap == pytest.approx(named["products"] + waited + weights)
    few = price(mesh=Mesh(1, 64, 1, fsdp=True), tokens=2**18)
    assert few.seconds["products"] > few.seconds["weights over network"]
    slow = price(mesh=Mesh(1, 64, 1, fsdp=True), tokens=2**18, link_efficiency=0.1)
    assert slow.bound == "weights over network"
    hidden = slow.seconds["weights over network"] + slow.seconds["update"]
    assert slow.with_overlap == hidden


def test_intensities_are_in_balance_where_times_are_equal():
    cost = price(mesh=Mesh(1, 64, 1, fsdp=True))
    intensity, balance = cost.intensities["weights over network"]
    assert balance == pytest.approx(0.78 * 989e12 / (0.8 * 50e9))
    assert intensity > balance
    assert cost.intensities["memory"][1] == pytest.approx(0.78 * 989e12 / 3350e9)


def test_float32_is_slower_on_a_gpu_alone():
    for accelerator, times in ((H100, 2.0), (V5E, 1.0)):
        half, full = (
            price(accelerator=accelerator, itemsize=size).seconds["products"]
            for size in (2, 4)
        )
        assert full / half == pytest.approx(times)


def test_replicas_share_nothing():
    many = price("1b", mesh=Mesh(4, 16, 1))
    alone = price("1b", mesh=Mesh(1, 16, 1))
    assert (many.memory, many.sent) == (alone.memory, alone.sent)
    assert many.seconds == alone.seconds
    assert str(Mesh(4, 16, 1)) == "replicas:4,data:16"
