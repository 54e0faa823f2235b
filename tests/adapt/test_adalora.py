"""AdaLoRA's schedule and pruning, step by step, against NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import adapt
from ffnlab.adapt import adalora
from ffnlab.errors import InputError
from tests.adapt.small import build, moved, random_like

CONFIG = adapt.AdaLoRA(
    rank=3,
    target_rank=1,
    total_steps=20,
    warmup_steps=3,
    final_steps=5,
    interval=4,
    beta1=0.8,
    beta2=0.7,
)
MODULES = [f"layer_{i}/attention/{name}" for i in (0, 1) for name in ("query", "value")]


class Oracle:
    """Algorithm 1 of the paper, module by module and triplet by triplet."""

    def __init__(self):
        self.sensitivity, self.uncertainty = {}, {}
        self.mask = {(module, i): True for module in MODULES for i in range(3)}

    def budget(self, step):
        first, last, modules = 3, 15, len(MODULES)
        if step <= first:
            return 3 * modules
        if step >= last:
            return modules
        rest = (1 - (step - first) / (last - first)) ** 3
        return modules + int((3 - 1) * modules * rest)

    def entry(self, name, w, grad):
        new = np.abs(w * grad)
        old = self.sensitivity.get(name, 0.0), self.uncertainty.get(name, 0.0)
        smooth = 0.8 * old[0] + 0.2 * new
        spread = 0.7 * old[1] + 0.3 * np.abs(new - smooth)
        self.sensitivity[name], self.uncertainty[name] = smooth, spread
        return smooth * spread

    def update(self, arrays, grads, step):
        scores = {}
        for module in MODULES:
            parts = {
                name: self.entry(
                    (module, name), arrays[module][name], grads[module][name]
                )
                for name in ("p", "lambda", "q")
            }
            for i in range(3):
                column, row = parts["p"][:, i].mean(), parts["q"][i].mean()
                scores[module, i] = parts["lambda"][i] + column + row
        due = step >= 3 and step % 4 == 0 and step <= 15 or step == 15
        if due:
            best = sorted(scores, key=scores.get, reverse=True)[: self.budget(step)]
            self.mask = {triplet: triplet in best for triplet in scores}
        if due or step > 15:
            for (module, i), kept in self.mask.items():
                arrays[module]["lambda"][i] *= kept


def by_module(tree):
    return {
        f"{layer}/attention/{name}": jax.tree.map(
            np.array, tree["encoder"][layer]["attention"][name]["adalora"]
        )
        for layer in ("layer_0", "layer_1")
        for name in ("query", "value")
    }


def test_pruning_step_by_step():
    model, params = build("bert")
    trainable, _, _ = adapt.apply(params, CONFIG, model)
    trainable, oracle = moved(trainable), Oracle()
    state = adalora.init(trainable)
    update = jax.jit(functools.partial(adalora.update, CONFIG))
    counts = []
    for step in range(1, 21):
        grads = random_like(trainable, seed=step)
        # An optimizer's step, which lets pruned entries grow again.
        trainable = jax.tree.map(lambda w, g: w - 0.01 * g, trainable, grads)
        arrays = by_module(trainable)
        oracle.update(arrays, by_module(grads), step)
        state, trainable = update(state, trainable, grads, step)
        chex.assert_trees_all_close(by_module(trainable), arrays, rtol=1e-6)
        for (module, name), values in oracle.uncertainty.items():
            path = f"encoder/{module}/adalora/{name}"
            chex.assert_trees_all_close(state.uncertainty[path], values, rtol=1e-4)
        kept = [oracle.mask[module, i] for module in MODULES for i in range(3)]
        assert state.mask.tolist() == kept
        counts.append(sum(kept))
    ranks = adalora.ranks(trainable)
    assert sum(ranks.values()) == 1 * len(MODULES)
    assert {path.removeprefix("encoder/") for path in ranks} == set(MODULES)
    assert counts == [12] * 3 + [10] * 4 + [5] * 4 + [4] * 9


def test_ties_leave_exactly_the_budget():
    """Without a gradient all triplets are equally important."""
    model, params = build("bert", scan=True)
    trainable, _, _ = adapt.apply(params, CONFIG, model)
    trainable = moved(trainable)
    zeros = jax.tree.map(jnp.zeros_like, trainable)
    state = adalora.init(trainable)
    state, trainable = adalora.update(CONFIG, state, trainable, zeros, 15)
    assert int(state.mask.sum()) == sum(adalora.ranks(trainable).values()) == 4


@pytest.mark.parametrize("total", [2, 3, 7, 50, 1000])
def test_every_schedule_ends_at_its_budget(total):
    config = adapt.AdaLoRA(rank=5, target_rank=2, total_steps=total)
    steps = np.arange(total + 1)
    budgets = np.asarray(adalora.budget(config, 3, steps))
    assert budgets[0] == 15 and budgets[config.last] == budgets[-1] == 6
    assert (np.diff(budgets) <= 0).all()


def test_orthogonality_loss():
    model, params = build("bert")
    trainable, _, _ = adapt.apply(params, CONFIG, model)
    trainable = moved(trainable)
    total = 0.0
    for arrays in by_module(trainable).values():
        total += np.square(arrays["p"].T @ arrays["p"] - np.eye(3)).sum()
        total += np.square(arrays["q"] @ arrays["q"].T - np.eye(3)).sum()
    loss = adalora.orthogonality_loss(CONFIG, trainable)
    chex.assert_trees_all_close(float(loss), 0.1 * total, rtol=1e-5)


def test_adalora_must_be_among_the_methods():
    model, params = build("bert")
    trainable, _, _ = adapt.apply(params, adapt.LoRA(), model)
    with pytest.raises(InputError, match="adalora: no module is adapted by it"):
        adalora.init(trainable)
