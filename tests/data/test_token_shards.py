"""Token shards: the windows of a text in memory, from files that may be of any size."""

import json
import os
import shutil

import numpy as np
import pytest

from ffnlab import data, digests
from ffnlab.data import corpus, shard_index, shard_writer
from ffnlab.data.corpus import ByteTokenizer
from ffnlab.data.shard_index import read_index
from ffnlab.data.shard_writer import write_shards
from ffnlab.data.text_blocks import scan
from ffnlab.data.token_shards import open_shards
from ffnlab.errors import InputError

NAME = "text.txt"
SHARD = 1024


class Framed(ByteTokenizer):
    """Bytes with one token before each window and two after it, as a BERT has."""

    around = ([300], [301, 302])
    end = None
    size = 303


class Wide(ByteTokenizer):
    """Bytes as tokens from 70,000 on."""

    size = 70_256

    def stream(self, document):
        tokens, words = super().stream(document)
        return corpus.Stream(tokens + 70_000, words)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    paths = []
    for name, count in (("a.txt", 700), ("b.txt", 90)):
        paths.append(tmp_path_factory.mktemp("text") / name)
        paths[-1].write_text("".join(f"the {n} is_{n % 7}\n" for n in range(count)))
    return [str(path) for path in paths]


def sources(paths):
    return [scan(path, 0.05, 0.05, utf8=False) for path in paths]


@pytest.fixture(scope="module")
def made(tmp_path_factory, texts):
    """The shards of bytes, made once."""
    directory = tmp_path_factory.mktemp("shards") / "bytes"
    write_shards(directory, sources(texts), ByteTokenizer(), SHARD)
    return directory


@pytest.fixture
def shards(made, tmp_path):
    """A copy of the shards, to damage."""
    return shutil.copytree(made, tmp_path / "shards")


def same(part, other):
    assert part.keys() == other.keys()
    for name, array in part.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
        assert array.dtype == other[name].dtype, name


@pytest.mark.parametrize("length", [12, 64])
@pytest.mark.parametrize(
    ("tokenizer", "masked"),
    [(ByteTokenizer(), False), (Framed(), False), (Framed(), True), (Wide(), False)],
)
def test_the_windows_are_those_of_the_text_in_memory(
    texts, tmp_path, tokenizer, masked, length
):
    write_shards(tmp_path, sources(texts), tokenizer, SHARD)
    shards = open_shards(tmp_path)
    assert len(shards.index.parts["train"].shards) > 5
    parts, about = corpus.read_texts(texts)
    memory = corpus.language_data(
        "text", parts, tokenizer, length, masked=masked, about=about
    )
    streamed = shards.dataset(tokenizer, length, masked=masked, held_out=7)
    assert streamed.train.size == data.size(streamed.train) == data.size(memory.train)
    same(memory.train, streamed.train.read(np.arange(streamed.train.size)))
    index = np.array([3, 0, streamed.train.size - 1, 3])
    same(data.rows(memory.train, index), data.rows(streamed.train, index))
    same(data.thin(memory.valid, 7), streamed.valid)
    same(data.thin(memory.test, 7), streamed.test)
    for name in ("source", "sizes", "tokens_per_byte"):
        assert memory.about[name] == streamed.about[name]
    assert streamed.classes == tokenizer.size


def test_ends_of_documents_are_never_masked(made, texts):
    dataset = open_shards(made).dataset(ByteTokenizer(), 16, masked=True)
    part = dataset.train.read(np.arange(dataset.train.size))
    ends = (part["x/tokens"] == 0) & part["x/mask"]
    assert ends.sum() == 2 and (part["x/words"][ends] == -1).all()
    assert ((part["y"] >= 0) == (part["x/words"] >= 0)).all()
    whole = b"".join(corpus.read_texts(texts)[0]["train"])
    assert bytes(part["y"][part["y"] >= 0].tolist()) == whole


@pytest.mark.parametrize("length", [5, 64, 255])
def test_any_windows_are_those_read_one_by_one(made, length):
    """Some lie in a shard, some in several, and the last one has padding."""
    for masked in (False, True):
        train = open_shards(made).dataset(ByteTokenizer(), length, masked=masked).train
        index = np.random.default_rng(0).permutation(train.size)
        rows = [train.read(index[n : n + 1]) for n in range(train.size)]
        whole = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        same(train.read(index), whole)
        same(train.read(index[:0]), {name: each[:0] for name, each in whole.items()})


@pytest.mark.parametrize("length", [5, 64, 255])
def test_words_are_numbered_from_the_first_of_a_window(made, texts, length):
    train = open_shards(made).dataset(ByteTokenizer(), length, masked=True).train
    begins = []
    for document in corpus.read_texts(texts)[0]["train"]:
        words = ByteTokenizer().stream(document).words
        begins += [True, *np.diff(words), True]  # and the end of the document
    part = train.read(np.arange(train.size))
    for row, words in enumerate(part["x/words"]):
        numbers = np.cumsum(begins[row * length : (row + 1) * length])
        inside = part["y"][row, : len(numbers)] >= 0
        expected = np.where(inside, numbers - numbers[0], -1)
        np.testing.assert_array_equal(words[: len(numbers)], expected)


def test_a_process_reads_its_own_rows(made):
    train = open_shards(made).dataset(ByteTokenizer(), 16).train
    index = data.indices([4], 90, 91, batch=8, size=train.size)[0, 0]
    whole, mine = train.read(index), train.batch_rows(4, 90, 8, 2, 5)
    same({name: array[2:5] for name, array in whole.items()}, mine)


def test_vocabularies_choose_the_dtype(made, texts, tmp_path):
    assert read_index(made).dtype == "uint16"
    write_shards(tmp_path, sources(texts), Wide(), SHARD)
    assert read_index(tmp_path).dtype == "uint32"
    dataset = open_shards(tmp_path).dataset(Wide(), 16)
    assert dataset.train.read(np.array([0]))["x/tokens"].min() > 70_000


def test_every_file_has_its_digest(made):
    names = digests.read(made / digests.NAME)
    held = {path.name for path in made.iterdir()} - {digests.NAME}
    assert set(names) == held and len(held) > 10
    assert all(digests.digest(made / name) == key for name, key in names.items())
    index, sizes = read_index(made), {}
    for part, shard in index.parts.items():
        assert max(shard.shards) < SHARD + 1100  # and the line of the last block
        for number, count in enumerate(shard.shards):
            sizes[f"{part}-{number:05d}.tokens"] = 2 * count
    for name, size in sizes.items():
        assert (made / name).stat().st_size == size


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_an_interrupted_preparation_goes_on_to_the_same_files(
    made, texts, tmp_path, monkeypatch, stop
):
    """It is stopped inside a shard, and when a shard is written but not recorded."""

    class Killed(BaseException):
        pass

    out, calls, write = tmp_path / "again", 0, shard_index.ShardIndex.write

    def dying(self, directory):
        nonlocal calls
        calls += 1
        if calls == stop + 1:
            raise Killed
        write(self, directory)

    def progress(done):
        if calls == stop:
            raise Killed

    for hook in (progress, None):
        calls = 0
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(shard_index.ShardIndex, "write", dying)
            write_shards(out, sources(texts), ByteTokenizer(), SHARD, hook)
        if stop:
            with pytest.raises(InputError, match="is not finished; experiments"):
                open_shards(out)
    (out / "train-00002.tokens.part").write_bytes(b"half")
    seen = []
    write_shards(out, sources(texts), ByteTokenizer(), SHARD, seen.append)
    assert seen[-1] == sum(source.size for source in sources(texts))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in made.iterdir()
    }
    with pytest.raises(InputError, match="the preparation is finished"):
        write_shards(out, sources(texts), ByteTokenizer(), SHARD)


def test_only_the_same_preparation_goes_on(shards, texts):
    index = read_index(shards)
    index.next = [1, 0, 0]
    index.write(shards)
    for given, message in [
        ((sources(texts[:1]), ByteTokenizer(), SHARD), "sources differs"),
        ((sources(texts), Framed(), SHARD), "tokenizer_sha256 differs"),
        ((sources(texts), ByteTokenizer(), 2 * SHARD), "shard_tokens differs"),
    ]:
        with pytest.raises(InputError, match=message):
            write_shards(shards, *given)
    cut(shards / "train-00001.words")
    with pytest.raises(InputError, match="train-00001.words: the file was changed"):
        write_shards(shards, sources(texts), ByteTokenizer(), SHARD)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def change(path):
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-00001.tokens", os.remove, r"train-00001.tokens: the shard is missing"),
        ("train-00001.words", os.remove, r"train-00001.words: the shard is missing"),
        ("valid-00000.tokens", cut, r"valid-00000.tokens: the shard has \d+ bytes"),
        ("test-00000.words", cut, r"test-00000.words: the shard has \d+ bytes"),
        ("train-00000.tokens", change, r"the shard was changed or is damaged"),
        ("train-00000.words", change, r"the shard was changed or is damaged"),
        ("shards.json", os.remove, r"no shards.json in it; name a directory of token"),
        ("shards.json", change, r"shards.json: the file was changed or is damaged"),
        ("manifest.sha256", os.remove, r"no manifest.sha256 in it"),
        ("manifest.sha256", change, r"the record of digests is damaged"),
    ],
)
def test_damage_is_named(shards, name, damage, message):
    damage(shards / name)
    with pytest.raises(InputError, match=message) as error:
        open_shards(shards)
    assert "\n" not in str(error.value)


def test_directories_of_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent: not a directory; name a directory"):
        open_shards(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no shards.json in it; name a directory of"):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": 65_537}, "65537 tokens do not fit in uint16, which has 65536"),
        ({"dtype": "int8"}, r'dtype: should be one of "uint16", "uint32", not "int8"'),
        ({"version": 2}, "version 2 is of a later ffnlab"),
        ({"version": "1"}, 'version: should be a whole number at least 1, not "1"'),
        ({"parts": {"a": 1, "b": 2, "c": 3}}, "parts: train: should be an object"),
        ({"sources": [{}]}, "sources: entry 1: name is missing"),
        ({"tokenizer": None}, "tokenizer: should be"),
        ({"next": [0, -1, 0]}, "next: entry 2: should be a whole number at least 0"),
    ],
)
def test_a_wrong_index_is_named(shards, changes, message):
    values = json.loads((shards / "shards.json").read_text())
    (shards / "shards.json").write_text(json.dumps({**values, **changes}))
    digests.seal(shards)
    with pytest.raises(InputError, match=message):
        open_shards(shards)


def test_what_does_not_fit_is_refused(made):
    shards = open_shards(made)
    with pytest.raises(InputError, match=r"max_seq_length: 3000 is more than the \d+ "):
        shards.dataset(ByteTokenizer(), 3000)
    with pytest.raises(InputError, match="of another tokenizer, of 257 tokens, than a"):
        shards.check_tokenizer(Framed(), "a BERT")
    shards.check_tokenizer(shards.tokenizer(), "itself")
    with pytest.raises(InputError, match="a window of 3 tokens has no room for text"):
        shards.dataset(Framed(), 3, masked=True)

    class Unmasked(ByteTokenizer):
        mask = None

    with pytest.raises(InputError, match="its tokenizer has no mask token"):
        shards.dataset(Unmasked(), 8, masked=True)


def test_a_part_without_a_token_is_refused(write, tmp_path):
    class Letters(ByteTokenizer):
        def stream(self, document):
            return super().stream(document.replace(b"\n", b""))

    path = write(b"abc\n" * 50 + b"\n" * 40)
    source = scan(str(path), 0.05, 0.05, utf8=False)
    with pytest.raises(InputError, match="text.txt: the valid part of the text has no"):
        write_shards(tmp_path / "out", [source], Letters(), SHARD)


def test_digests_tell_shards_apart(made, shards, texts, tmp_path):
    dataset = open_shards(made).dataset(ByteTokenizer(), 16)
    again = open_shards(shards).dataset(ByteTokenizer(), 16)
    assert data.digest(dataset) == data.digest(again)
    write_shards(tmp_path / "b", sources(texts[::-1]), ByteTokenizer(), SHARD)
    other = open_shards(tmp_path / "b").dataset(ByteTokenizer(), 16)
    assert data.digest(dataset) != data.digest(other)
    assert shard_writer.SHARD_TOKENS * 2 < 2**28
