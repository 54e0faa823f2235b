"""The model card, of a task without a model."""

import pytest

from ffnlab.finetune import model_card
from ffnlab.report.table import Table
from tests.finetune.fake import make_config, make_task

TABLE = Table(["part", "accuracy, %"], [["dev", "50.00"]], words=1)


def card_of(config=None, **fields):
    config = config or make_config()
    return model_card.model_card(config, make_task(config, **fields), TABLE)


def test_the_card_says_what_was_trained_on_what():
    card = card_of()
    assert card.startswith(
        "---\npipeline_tag: text-classification\nlibrary_name: transformers\n---\n"
        "# minilm, fine-tuned on train.tsv\n"
    )
    assert TABLE.markdown() in card and "- train: 40 texts\n- dev: 8 texts\n" in card
    assert "One seed was trained." in card


@pytest.mark.parametrize(
    ("task", "pipeline", "loader"),
    [
        ("classify", "text-classification", "SequenceClassification"),
        ("pairs", "text-classification", "SequenceClassification"),
        ("tag", "token-classification", "TokenClassification"),
        ("qa", "question-answering", "QuestionAnswering"),
        ("generate", "text-generation", "CausalLM"),
    ],
)
def test_each_task_has_its_pipeline_and_its_class_of_transformers(
    task, pipeline, loader
):
    family = "gpt2" if task == "generate" else "roberta"
    card = card_of(make_config(task=task), family=family)
    assert f"pipeline_tag: {pipeline}\n" in card
    assert f"AutoModelFor{loader}.from_pretrained" in card


@pytest.mark.parametrize(
    ("options", "family"),
    [({"head": "swiglu"}, "bert"), ({}, "ffnlab"), ({"task": "generate"}, "ffnlab")],
)
def test_what_transformers_has_not_is_not_loaded_by_it(options, family):
    card = card_of(make_config(**options), family=family)
    assert "transformers" not in card and "experiments.predict --run" in card


def test_few_labels_are_named_and_of_many_the_first_twenty():
    assert "one label: `odd`, `even`.\n" in card_of(label_names=["odd", "even"])
    assert "one label.\n" in card_of()
    card = card_of(label_names=[f"l{k}" for k in range(23)])
    assert "`l19` and 3 more.\n" in card and "`l20`" not in card


def test_flags_that_differ_from_their_defaults_are_listed():
    card = card_of(make_config(seeds=3, adversarial="fgm", extra=("more.tsv",)))
    training = card.partition("## Training\n")[2].partition("## Use")[0]
    first, *flags = training.strip().splitlines()
    assert first == "- from minilm, `--task=classify`, adamw"
    assert set(flags) == {
        "- `--epochs=3.0`", "- `--batch_size=16`", "- `--learning_rate=5e-05`",
        "- `--seed=0`", "- `--seeds=3`", "- `--adversarial=fgm`",
    }  # fmt: skip
    assert "The best of 3 seeds by the dev part is here" in card


def test_checkpoints_are_named_by_their_folders():
    def name(path):
        return model_card.checkpoint_name(make_config(checkpoint=path))

    assert name("models/minilm") == "minilm"
    assert name("runs/tag/model") == "tag/model"
    assert name("tiny") == "a small model from scratch"
