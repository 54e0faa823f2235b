"""A fine-tuned model, read from its run."""

import json
import shutil

import chex
import pytest

from ffnlab import digests
from ffnlab.errors import InputError
from ffnlab.finetune.finetuned_model import read_finetuned
from ffnlab.finetune.usage import KEY, Usage


def copy_best(run, folder):
    """Copies the directory of the model of a run."""
    shutil.copytree(run.out / "best", folder)


def test_a_model_is_read_with_its_labels_and_its_usage(sorted_texts):
    model = read_finetuned(sorted_texts.out)
    assert model.names == ["even", "odd"]
    usage = model.usage
    assert (usage.task, usage.text_column, usage.max_seq_length) == (
        "classify",
        "2",
        14,
    )
    assert model.checkpoint.directory == sorted_texts.out / "best"
    assert sorted(model.params) == ["encoder", "head"]
    again = read_finetuned(str(sorted_texts.out / "best"))
    chex.assert_trees_all_equal(again.params, model.params)


def test_what_is_no_run_is_refused(sorted_texts, bert, tmp_path):
    name = "not a run of experiments.finetune"
    with pytest.raises(
        InputError, match=f"^run: .*/absent: {name}, it has no config.j"
    ):
        read_finetuned(tmp_path / "absent")
    with pytest.raises(
        InputError, match=f"^run: .*: {name}, its config.json has no ff"
    ):
        read_finetuned(bert)
    folder = tmp_path / "run"
    copy_best(sorted_texts, folder)
    (folder / digests.NAME).unlink()
    settings = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({KEY: {"task": "draw"}}, "should be a record with one of the tasks classify"),
        ({KEY: [1]}, "should be a record"),
        ({KEY: {"task": "qa", "length": 3}}, "has no 'dtype'; train again"),
        ({KEY: {"task": ["qa"]}}, "should be a record"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(InputError, match=f"^run: .*config.json: {KEY} {message}"):
            read_finetuned(folder)


def test_labels_and_usage_are_of_their_types(sorted_texts, tmp_path):
    folder = tmp_path / "run"
    copy_best(sorted_texts, folder)
    (folder / digests.NAME).unlink()
    settings = json.loads((folder / "config.json").read_text())
    for labels, message in (
        ([1], "id2label: should be an object"),
        ({"0": "a", "x": "b"}, "id2label: 1 is missing; train again"),
        ({"0": "a", "1": 3}, 'id2label: "1": should be a text, not 3'),
        (
            {"0": "a", "1": "b", "2": "c"},
            r"head/out/bias is \[2\], its labels",
        ),
    ):
        text = json.dumps({**settings, "id2label": labels})
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_finetuned(folder)
    for task in ("classify", "tag", "qa", "generate"):
        usage = Usage(task, 64).to_dict()
        for name in usage:
            for value in ([[]], {"a": 1}, 10**30, float("nan")):
                with pytest.raises(InputError, match=f"^c: {KEY}"):
                    Usage.from_dict("c", {**usage, name: value})


def test_a_damaged_file_of_a_model_is_named(sorted_texts, tmp_path):
    """Whichever of its files it is, but its README.md, which is for readers."""
    copy_best(sorted_texts, tmp_path / "run")
    names = set(digests.read(tmp_path / "run" / digests.NAME))
    assert {"README.md", "config.json", "model.safetensors"} < names
    for name in sorted(names | {digests.NAME}):
        path = tmp_path / "run" / name
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(
            bytes([*content[:middle], content[middle] ^ 1, *content[middle + 1 :]])
        )
        if name == "README.md":
            assert read_finetuned(tmp_path / "run").names == ["even", "odd"]
        else:
            with pytest.raises(InputError, match=f"{name}: the .* damaged"):
                read_finetuned(tmp_path / "run")
        path.write_bytes(content)
