"""What trains, what stays frozen, and what a step computes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import adapt, trees
from ffnlab.errors import InputError
from ffnlab.nn.precision import mixed_precision
from tests.adapt.small import FIELDS, SUM, X, build, loss, moved, shapes

HEAD = {"head/out/bias": (3,), "head/out/kernel": (12, 3)}
POOLER = {"encoder/pooler/bias": (12,), "encoder/pooler/kernel": (12, 12)}
BIASES = {
    "attention/key/bias": 12,
    "attention/out/bias": 12,
    "attention/query/bias": 12,
    "attention/value/bias": 12,
    "attention_norm/bias": 12,
    "ffn/down/bias": 12,
    "ffn/up/bias": 20,
    "ffn_norm/bias": 12,
}
ATTENTION = {f"{n}/kernel": (12, 12) for n in ("key", "out", "query", "value")} | {
    f"{n}/bias": (12,) for n in ("key", "out", "query", "value")
}
FFN = {
    "down/bias": (12,),
    "down/kernel": (20, 12),
    "up/bias": (20,),
    "up/kernel": (12, 20),
}
NORM = {"bias": (12,), "scale": (12,)}


def layers(part, arrays, numbers=(0, 1)):
    return {
        f"encoder/layer_{i}/{part}{n}": s for i in numbers for n, s in arrays.items()
    }


def attention(arrays, names=("query", "value")):
    return {k: v for n in names for k, v in layers(f"attention/{n}/", arrays).items()}


TREES = {
    "lora": attention({"lora/a": (12, 2), "lora/b": (2, 12)}),
    "dora": attention({"lora/a": (12, 2), "lora/b": (2, 12), "lora/magnitude": (12,)}),
    "adalora": attention(
        {"adalora/p": (12, 3), "adalora/lambda": (3,), "adalora/q": (3, 12)}
    ),
    "ia3": attention({"ia3/output": (12,)}, ("key", "value"))
    | layers("ffn/down/", {"ia3/input": (20,)}),
    "houlsby": {
        name: shape
        for part in ("attention", "ffn")
        for name, shape in layers(
            f"bottleneck/{part}/",
            {
                "down/bias": (12,),
                "down/kernel": (4, 12),
                "up/bias": (4,),
                "up/kernel": (12, 4),
            },
        ).items()
    },
    "pfeiffer": layers(
        "bottleneck/ffn/",
        {
            "down/bias": (12,),
            "down/kernel": (4, 12),
            "gate/bias": (4,),
            "gate/kernel": (12, 4),
            "up/bias": (4,),
            "up/kernel": (12, 4),
        },
    ),
    "parallel": layers(
        "bottleneck/ffn/",
        {
            "down/bias": (12,),
            "down/kernel": (4, 12),
            "up/bias": (4,),
            "up/kernel": (12, 4),
        },
    ),
    "prefix": {"encoder/prefix/key": (2, 3, 12), "encoder/prefix/value": (2, 3, 12)},
    "prompt": {"encoder/prompt/embedding": (3, 12)},
    "bitfit": layers("", {name: (width,) for name, width in BIASES.items()})
    | {"encoder/embed/norm/bias": (12,)},
    "head": {},
    "top": layers("attention/", ATTENTION, [1])
    | layers("attention_norm/", NORM, [1])
    | layers("ffn/", FFN, [1])
    | layers("ffn_norm/", NORM, [1]),
    "ffn": layers("ffn/", FFN),
    "attention": layers("attention/", ATTENTION),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_of_what_trains(name):
    model, params = build("bert")
    trainable, frozen, _ = adapt.apply(params, adapt.parse(name, **FIELDS[name]), model)
    assert shapes(trainable) == {**TREES[name], **HEAD, **POOLER}
    given, kept = trees.flatten(params), trees.flatten(frozen)
    assert set(kept) == set(given) - set(trees.flatten(trainable))
    assert all(kept[path] is given[path] for path in kept)  # not copied


def test_everything_trains_by_full_and_the_pooler_is_a_choice():
    model, params = build("bert")
    trainable, frozen, _ = adapt.apply(params, adapt.Full(), model)
    chex.assert_trees_all_equal(trainable, params)
    assert frozen == {}
    trainable, frozen, _ = adapt.apply(params, adapt.HeadOnly(), model, pooler=False)
    assert shapes(trainable) == HEAD
    assert "pooler" in frozen["encoder"]


def test_top_layers_of_a_stack_train_alone():
    model, params = build("bert", scan=True)
    trainable, frozen, apply = adapt.apply(params, adapt.TopLayers(), model)
    assert trainable["encoder"]["layers"]["ffn"]["up"]["kernel"].shape == (1, 12, 20)
    full = params["encoder"]["layers"]["ffn"]["up"]["kernel"]
    joined = adapt.join(trainable, frozen, adapt.TopLayers())
    chex.assert_trees_all_equal(joined, params)
    changed = jax.tree.map(lambda leaf: leaf + 1.0, trainable)
    joined = adapt.join(changed, frozen, adapt.TopLayers())
    kernel = joined["encoder"]["layers"]["ffn"]["up"]["kernel"]
    chex.assert_trees_all_equal(kernel, full.at[1].add(1.0))
    total = trees.count(params)
    assert adapt.summary(trainable, frozen).total == total


def test_frozen_arrays_stay_and_trained_ones_move():
    """Ten steps of Adam with dropout, on a donated state."""
    model, params = build("bert")
    before = jax.tree.map(np.array, params)
    config = adapt.LoRA(rank=2, dropout=0.2, targets=("all",)) + adapt.BitFit()
    trainable, frozen, apply = adapt.apply(params, config, model)
    first = jax.tree.map(np.array, trainable)
    optimizer = optax.adam(1e-2)

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state, frozen):
        def step(state, key):
            trainable, opt = state

            def mean(trainable):
                return jnp.square(apply(trainable, frozen, X, key)[0]).mean()

            value, grads = jax.value_and_grad(mean)(trainable)
            updates, opt = optimizer.update(grads, opt)
            return (optax.apply_updates(trainable, updates), opt), value

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 10))

    (trained, _), losses = train((trainable, optimizer.init(trainable)), frozen)
    assert losses[-1] < losses[0]
    chex.assert_trees_all_equal(params, before)  # nor were they donated
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), trained, first)
    assert all(jax.tree.leaves(moved))


def test_layers_below_the_lowest_trained_one_run_forward_only():
    """And of frozen kernels no gradient is computed."""
    model, params = build("bert")

    def cost(config):
        trainable, frozen, apply = adapt.apply(params, config, model)
        program = jax.jit(jax.grad(lambda t, f: loss(apply, t, f)))
        return program.lower(trainable, frozen).cost_analysis()["flops"]

    head, top, full = map(cost, (adapt.HeadOnly(), adapt.TopLayers(), adapt.Full()))
    lora = cost(adapt.LoRA(rank=1))
    assert head < top < lora < full
    assert head < 0.5 * full and lora < 0.8 * full


def test_a_population_over_one_frozen_part_is_single_runs():
    model, params = build("bert")
    config = adapt.LoRA(rank=2, dropout=0.3) + adapt.Prefix(virtual_tokens=2)
    _, frozen, apply = adapt.apply(params, config, model)
    keys = jax.random.split(jax.random.key(3), 2)
    population = jax.vmap(lambda key: adapt.init(params, config, key=key))(keys)
    population = moved(population)

    def run(trainable, frozen, key):
        def mean(trainable):
            return jnp.sin(apply(trainable, frozen, X, key)[0]).mean()

        return jax.value_and_grad(mean)(trainable)

    mesh = jax.sharding.Mesh(jax.devices()[:2], ("replicas",))
    by_replica, everywhere = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (["replicas"], [])
    )
    together = jax.jit(jax.vmap(run, in_axes=(0, None, 0)))(
        jax.device_put(population, by_replica),
        jax.device_put(frozen, everywhere),
        jax.device_put(keys, by_replica),
    )
    both = jax.device_get((population, together))
    for number in range(2):
        one = jax.tree.map(lambda leaf: leaf[number], both)  # noqa: B023
        expected = jax.jit(run)(one[0], frozen, keys[number])
        chex.assert_trees_all_close(one[1], expected, rtol=1e-4, atol=1e-6)
    a = population["encoder"]["layer_0"]["attention"]["query"]["lora"]["a"]
    assert bool((a[0] != a[1]).any())


def test_a_half_precision_base_has_full_precision_trainables():
    model, params = build("bert")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    config = SUM + adapt.AttentionOnly()
    trainable, frozen, apply = adapt.apply(half, config, model)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(trainable)} == {"float32"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(frozen)} == {"bfloat16"}
    joined_dtype = jax.eval_shape(lambda t, f: apply(t, f, X)[0], trainable, frozen)
    assert joined_dtype.dtype == jnp.bfloat16  # nothing was promoted on the way
    grads = jax.eval_shape(jax.grad(lambda t: loss(apply, t, frozen)), trainable)
    chex.assert_trees_all_equal_dtypes(grads, trainable)


def test_mixed_precision_keeps_float32_trainables():
    model, params = build("bert")
    config = adapt.LoRA(rank=2, dora=True) + adapt.Bottleneck(hidden=3)
    trainable, frozen, apply = adapt.apply(params, config, mixed_precision(model))
    _, _, apply_full = adapt.apply(params, config, model)
    trainable = moved(trainable, 0.1)

    @jax.jit
    def run(trainable):
        grads = jax.grad(lambda t: loss(apply, t, frozen))(trainable)
        return (
            apply(trainable, frozen, X)[0],
            apply_full(trainable, frozen, X)[0],
            grads,
        )

    half, full, grads = run(trainable)
    chex.assert_trees_all_equal_dtypes(grads, trainable)
    chex.assert_trees_all_close(half, full, rtol=0.05, atol=0.1)
    assert bool((half != full).any())


def test_rates_and_summary():
    model, params = build("bert")
    config = adapt.LoRA(rank=2, rate_ratio=16.0)
    trainable, frozen, _ = adapt.apply(params, config, model)
    rates = trees.flatten(adapt.rates(trainable, config))
    assert {path for path, rate in rates.items() if rate == 16.0} == {
        f"encoder/layer_{i}/attention/{name}/lora/b"
        for i in range(2)
        for name in ("query", "value")
    }
    assert set(rates.values()) == {1.0, 16.0}
    summary = adapt.summary(trainable, frozen)
    added = 4 * 2 * (12 + 12)  # modules, rank, widths
    head = 3 * 12 + 3 + 12 * 12 + 12
    assert summary.trained == added + head
    assert summary.total == trees.count(params) + added
    assert summary.bytes == 4 * summary.trained
    assert str(summary).startswith("387 of 3,367 parameters train (11.49%")


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("lora", {"rank": 13}, "rank: 13 must be at most 12, the width of layer_0/att"),
        ("lora", {"targets": ("quary",)}, "targets: unknown 'quary'; nearest: query"),
        ("lora", {"targets": ("(",)}, r"targets: '\(' is no pattern: "),
        ("adalora", {"rank": 13, "total_steps": 9}, "rank: 13 must be at most 12"),
        (
            "ia3",
            {"input_targets": ("dwn",)},
            "input_targets: unknown 'dwn'; nearest",
        ),
        ("top", {"layers": 3}, "layers: 3 must be at most 2"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(text, fields, message):
    model, params = build("bert")
    with pytest.raises(InputError, match=message) as caught:
        adapt.apply(params, adapt.parse(text, **fields), model)
    assert "\n" not in str(caught.value)


def test_arrays_of_another_method_are_refused():
    model, params = build("bert")
    trainable, frozen, _ = adapt.apply(params, adapt.LoRA(), model)
    with pytest.raises(InputError, match="query was adapted by lora, which it lacks"):
        adapt.join(trainable, frozen, adapt.IA3())


def test_targets_are_names_of_groups_or_patterns():
    model, params = build("bert")

    def modules(*targets):
        trainable, _, _ = adapt.apply(params, adapt.LoRA(targets=targets), model)
        paths = trees.flatten(trainable)
        return {p.split("/lora")[0].split("/", 1)[1] for p in paths if "/lora/" in p}

    ffn = {f"layer_{i}/ffn/{name}" for i in range(2) for name in ("up", "down")}
    names = ("query", "key", "value", "out")
    attention = {f"layer_{i}/attention/{name}" for i in range(2) for name in names}
    assert modules("ffn") == ffn
    assert modules("attention") == attention
    assert modules("all") == ffn | attention
    assert modules("layer_1/.*/(up|out)") == {"layer_1/ffn/up", "layer_1/attention/out"}
