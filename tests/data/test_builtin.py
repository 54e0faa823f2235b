"""The embedded data sets: sizes, splits without leaks, and taking batches."""

import ast
import json
import pathlib
import sysconfig

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets
from sklearn.preprocessing import StandardScaler

import ffnlab.data
from ffnlab.data import DATASETS, Dataset, builtin, load, size, take
from ffnlab.data.dataset import split_rows, standardise, standardise_target
from ffnlab.data.stdlib_source import python_source
from ffnlab.errors import InputError

PARTS = ("train", "valid", "test")
TABLES = {
    "digits": (1797, 64, 10),
    "breast_cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "iris": (150, 4, 3),
    "mnist1d": (5000, 40, 10),
}
VALUES = {"diabetes": (442, 10), "patches": (11_102, 48)}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_documented_form(name):
    data = load(name)
    rows, features, classes = TABLES[name]
    assert (data.name, data.task) == (name, "classes")
    assert (data.features, data.classes) == (features, classes)
    assert sum(size(getattr(data, part)) for part in PARTS) == rows
    for part in PARTS:
        split = getattr(data, part)
        assert split["x"].shape == (size(split), features)
        assert (split["x"].dtype, split["y"].dtype) == (np.float32, np.int32)
        assert np.isfinite(split["x"]).all()
        assert set(split["y"]) == set(range(classes))
        assert data.about["sizes"][part] == size(split)
    if name != "iris":  # some irises are equal
        assert data.about["repeated"] == {"valid": 0, "test": 0}
    json.dumps(data.about, allow_nan=False)


@pytest.mark.parametrize("name", VALUES)
def test_values_are_standardised_by_the_training_part(name):
    data = load(name, seed=4)
    rows, features = VALUES[name]
    assert (data.name, data.task, data.classes) == (name, "values", 1)
    assert sum(size(getattr(data, part)) for part in PARTS) == rows
    assert data.train["x"].shape == (size(data.train), features)
    for array in data.train.values():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(array.std(axis=0), 1, rtol=1e-4)
    json.dumps(data.about, allow_nan=False)


def test_patches_are_those_of_the_photographs():
    china, flower = sklearn_datasets.load_sample_images().images
    tiles = builtin._tiles(china.mean(axis=2), 7)
    assert tiles.shape == (61 * 91, 49)
    expected = china[7:14, 14:21].mean(axis=2).ravel()
    np.testing.assert_allclose(tiles[91 + 2], expected)
    data = load("patches")
    facts = data.about["target"]
    centres = data.test["y"] * facts["standard_deviation"] + facts["mean"]
    both = np.concatenate([tiles, builtin._tiles(flower.mean(axis=2), 7)])
    nearest = np.abs(np.unique(both[:, 24])[:, None] - centres).min(axis=0)
    assert nearest.max() < 1e-3


def test_help_topics_are_blocks_of_equal_numbers_for_every_seed():
    first, second = load("help_topics", 0), load("help_topics", 1)
    for part in PARTS:
        one, other = getattr(first, part), getattr(second, part)
        assert size(one) == size(other) == first.about["sizes"][part]
        assert size(one) % 4096 == 0 and size(one) > 0
    texts = [
        {bytes(text) for text in take(each.test, np.arange(size(each.test)))["y"]
         .astype(np.uint8).reshape(-1, 4096)}
        for each in (first, second)
    ]  # fmt: skip
    assert texts[0] != texts[1]
    assert b"statement" in b"".join(texts[0])


@pytest.mark.parametrize("name", TABLES)
def test_the_split_depends_on_the_seed_alone(name):
    one, again, other = load(name, seed=1), load(name, seed=1), load(name, seed=2)
    np.testing.assert_array_equal(one.train["x"], again.train["x"])
    assert one.train["x"].shape == other.train["x"].shape
    assert (one.train["x"] != other.train["x"]).any()


def test_digits_are_sixteenths():
    x = np.concatenate([getattr(load("digits"), part)["x"] for part in PARTS])
    whole = sklearn_datasets.load_digits().data / 16
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, whole.tolist()))


def test_standardising_is_scikit_learns_fitted_on_training():
    bunch = sklearn_datasets.load_wine()
    rows = split_rows("wine", 0, bunch.target, bunch.target_names.tolist())
    scaler = StandardScaler().fit(bunch.data[rows["train"]])
    for part in PARTS:
        expected = scaler.transform(bunch.data[rows[part]])
        np.testing.assert_allclose(
            getattr(load("wine"), part)["x"], expected, rtol=1e-5
        )


def test_rows_are_split_once_each_and_class_by_class():
    labels = np.repeat([0, 1, 2], [100, 10, 3])
    rows = split_rows("toy", 5, labels, ["a", "b", "c"])
    assert sorted(np.concatenate(list(rows.values()))) == list(range(113))
    counts = {part: np.bincount(labels[rows[part]]).tolist() for part in PARTS}
    assert counts == {"train": [60, 6, 1], "valid": [20, 2, 1], "test": [20, 2, 1]}


def test_a_class_too_small_to_split_is_named():
    labels = np.repeat([0, 1, 2], [5, 2, 1])
    with pytest.raises(
        InputError, match=r"^toy: too few examples of b \(2\), c \(1\): "
    ):
        split_rows("toy", 0, labels, ["a", "b", "c"])


def test_a_long_list_of_small_classes_is_cut_short():
    names = [f"{k:02d} " + "long " * 100 for k in range(50)]
    with pytest.raises(InputError, match=r"lo \(1\), 30 more: at least 3") as error:
        split_rows("toy", 0, np.arange(50), names)
    assert len(str(error.value)) < 1200


def test_constant_features_stay_out_of_the_way():
    tiny = 1e-300
    train = np.array([[0.1, 3.0, tiny], [0.1, 4.0, 2 * tiny], [0.1, 5.0, 0.0]])
    found = standardise({"train": train, "test": np.array([[9.0, 4.0, 1.0]])})
    assert (found["train"][:, [0, 2]] == 0).all()
    np.testing.assert_allclose(found["test"], [[0, 0, 0]])
    with pytest.raises(InputError, match="every training target is 0.1"):
        standardise_target("toy", {"train": np.full(3, 0.1)})


def test_repeated_examples_are_counted():
    x = {"train": np.eye(3), "valid": np.eye(3)[:2], "test": np.full((1, 3), 7.0)}
    y = {part: np.zeros(len(rows)) for part, rows in x.items()}
    data = ffnlab.data.dataset.table("toy", "classes", 1, x, y, {})
    assert data.about["repeated"] == {"valid": 2, "test": 0}


def test_unknown_names_offer_the_nearest():
    with pytest.raises(InputError, match="data set: unknown 'digit'; nearest: digits"):
        load("digit")


def test_the_names_are_a_literal_that_needs_no_import():
    tree = ast.parse(pathlib.Path(builtin.__file__).read_text(encoding="utf-8"))
    literal = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "DATASETS"
    )
    assert [key.value for key in literal.keys] == list(DATASETS)


def test_nothing_heavy_is_imported_with_the_data_room():
    """JAX nowhere; scikit-learn and SciPy only inside functions; pandas nowhere."""
    for file in pathlib.Path(ffnlab.data.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        anywhere, on_import = _imported(ast.walk(tree)), _imported(tree.body)
        assert not anywhere & {"jax", "jaxlib", "flax", "pandas"}, file
        assert not on_import & {"sklearn", "scipy"}, file


def _imported(nodes):
    """The top-level packages that import statements among nodes name."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    return {name.split(".")[0] for name in names}


@pytest.fixture(scope="module")
def source() -> Dataset:
    """Some of the standard library, quick to load."""
    return python_source(seed=3, limit=80)


def test_bytes_have_the_documented_form(source):
    assert (source.task, source.features, source.classes) == ("bytes", 32, 256)
    for part in PARTS:
        split = getattr(source, part)
        assert (split["text"].dtype, split["ends"].dtype) == (np.uint8, np.int32)
        assert source.about["sizes"][part] == size(split) > 0
    assert sum(source.about["files"].values()) <= 80
    assert len(source.about["sha256"]) == 64
    json.dumps(source.about, allow_nan=False)


def test_windows_hold_one_file_each_and_every_byte_is_predicted_once(source):
    """Read back through `take`, each part is its files, whole and in order."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    contents = set(ffnlab.data.stdlib_source._distinct_files(library, 80).values())
    for part in PARTS:
        split = getattr(source, part)
        batch = take(split, np.arange(size(split)))
        first = np.flatnonzero((batch["x"] == 0).all(axis=1))
        texts = np.split(batch["y"].astype(np.uint8), first[1:])
        assert len(texts) == source.about["files"][part]
        assert all(text.tobytes() in contents for text in texts)
        longest = max(range(len(texts)), key=lambda i: len(texts[i]))
        text, begin = texts[longest], first[longest]
        padded = np.concatenate([np.zeros(32, np.uint8), text])
        windows = np.lib.stride_tricks.sliding_window_view(padded, 32)[:-1]
        np.testing.assert_array_equal(batch["x"][begin : begin + len(text)], windows)


def test_parts_of_a_text_share_no_file():
    library = ffnlab.data.stdlib_source
    files = library._distinct_files(pathlib.Path(library.__file__).parent, None)
    assert set(files) == {
        path.name for path in pathlib.Path(library.__file__).parent.glob("*.py")
    }
    parts = [library._part(0, f"file{i}.py") for i in range(5000)]
    shares = [parts.count(part) / 5000 for part in PARTS]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)


def test_copies_tests_and_machine_made_files_are_left_out(tmp_path):
    kept = {"a.py": b"first", "pkg/deep/c.py": b"third"}
    left = {
        "b.py": b"first",
        "empty.py": b"",
        "notes.txt": b"text",
        "test/t.py": b"test",
        "pkg/tests/t.py": b"another test",
        "site-packages/other.py": b"other",
        "__pycache__/x.py": b"cache",
        "config-3.11-linux/make.py": b"made",
        "_sysconfigdata_linux.py": b"made too",
    }
    for name, content in {**kept, **left}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "dangling.py").symlink_to(tmp_path / "absent.py")
    assert ffnlab.data.stdlib_source._distinct_files(tmp_path, None) == kept


def test_context_and_limit_are_checked():
    assert python_source(limit=80, context=5).train["offsets"].tolist() == [
        -5,
        -4,
        -3,
        -2,
        -1,
    ]
    with pytest.raises(InputError, match="at least 1 byte, got 0"):
        python_source(context=0)
    with pytest.raises(InputError, match="at least 1 file, got -1"):
        python_source(limit=-1)
    with pytest.raises(InputError, match="1 source files do not fill"):
        python_source(limit=1)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("name", ["wine", "bytes"])
def test_take_is_the_same_in_numpy_and_inside_jit(name, shape, source):
    data = source if name == "bytes" else load(name)
    index = np.random.default_rng(0).integers(0, size(data.train), shape)
    expected = take(data.train, index)
    split = jax.tree.map(jnp.asarray, data.train)
    with jax.numpy_rank_promotion("raise"):
        found = jax.jit(take)(split, jnp.asarray(index))
    assert expected["x"].shape == (*shape, data.features)
    assert expected["y"].shape == shape
    for key in ("x", "y"):
        assert found[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(found[key], expected[key])
