"""The parts of the data: what is said of the files that they come from."""

from types import SimpleNamespace

from ffnlab.data import read_labelled
from ffnlab.finetune.splitting import layout_notes


def test_files_of_one_layout_share_a_line(write):
    def read(text, name):
        return read_labelled(write(text, name), "tag")

    blanks, tabs = read("a X\n", "a"), read("a\tX\n", "b")
    told = read('{"text": ["a"], "label": ["X"]}\n', "c.jsonl")
    array = read('[{"tokens": ["a"], "ner_tags": ["X"]}]', "d.json")
    config = SimpleNamespace(split=(), extra=("e", "d.json"))
    examples = {"train": blanks, "dev": tabs, "test": told}
    ends = "words from column 1, tags from the last column"
    assert layout_notes(config, examples, [blanks, array]) == [
        f"train, e: columns between blanks, {ends}",
        f"dev: columns between tabs, {ends}",
        "d.json: JSON: an array of objects; columns tokens, ner_tags",
    ]
    config = SimpleNamespace(split=(0.8, 0.1, 0.1), extra=())
    parts = dict.fromkeys(("train", "dev", "test"), blanks)
    assert layout_notes(config, parts) == [f"train: columns between blanks, {ends}"]
