"""Models in use give what transformers gives of the same `best/`, where it is there."""

import numpy as np
import pytest

from ffnlab import finetune
from ffnlab.finetune import runner
from tests.tuned import config

TEXTS = ["w1 w3, w2 w4.", "w20 (w1 w7) w8", "w25", "w5 w5 w9 W2!"]


@pytest.fixture(scope="module")
def transformers():
    """The library with torch; neither is among what the tests need."""
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def tokenizer_of(transformers, run):
    """The tokenizer of a run, whose `best/` has a vocab.txt without settings."""
    return transformers.BertTokenizerFast(vocab=str(run.out / "best" / "vocab.txt"))


def test_entities_are_those_of_transformers(transformers, tagged):
    theirs = transformers.pipeline(
        "token-classification",
        model=str(tagged.out / "best"),
        tokenizer=tokenizer_of(transformers, tagged),
        aggregation_strategy="first",
    )
    wanted = [
        [(e["entity_group"], e["start"], e["end"], e["score"]) for e in theirs(text)]
        for text in TEXTS
    ]
    ours = finetune.pipeline(tagged.out)(TEXTS)
    assert [[e[:3] for e in each] for each in ours] == [
        [e[:3] for e in each] for each in wanted
    ]
    scores = [e.score for each in ours for e in each]
    assert scores == pytest.approx([e[3] for each in wanted for e in each], abs=1e-5)


def test_labels_are_those_of_transformers(transformers, sorted_texts):
    theirs = transformers.pipeline(
        "text-classification",
        model=str(sorted_texts.out / "best"),
        tokenizer=tokenizer_of(transformers, sorted_texts),
        top_k=None,
    )
    ours = finetune.pipeline(sorted_texts.out)(TEXTS, top_k=2)
    for labels, wanted in zip(ours, theirs(TEXTS), strict=True):
        assert [each.text for each in labels] == [each["label"] for each in wanted]
        assert [each.probability for each in labels] == pytest.approx(
            [each["score"] for each in wanted], abs=1e-5
        )


def test_answers_are_those_of_transformers(
    transformers, bert, asked, tmp_path, without_steps
):
    options = {"max_seq_length": 16, "doc_stride": 4, "max_answer_length": 2}
    run = runner.run(config(bert, asked, "qa", tmp_path / "o", ".json", **options))
    question, context = "w25 w24?", "w5 w7 w9, w1."
    import torch

    kind = transformers.AutoModelForQuestionAnswering
    model, tokenizer = (
        kind.from_pretrained(run.out / "best"),
        tokenizer_of(transformers, run),
    )
    encoded = tokenizer(
        question, context, return_offsets_mapping=True, return_tensors="pt"
    )
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        logits = model(**encoded)
    starts, ends = (
        each[0].numpy() for each in (logits.start_logits, logits.end_logits)
    )
    inside = [n for n, kind in enumerate(encoded.sequence_ids()) if kind == 1]
    scores = {(0, 0): starts[0] + ends[0]}
    for i in inside:
        for j in {i, i + 1} & {*inside}:
            scores[offsets[i][0], offsets[j][1]] = starts[i] + ends[j]
    best = sorted(scores, key=scores.get, reverse=True)
    total = np.exp([*scores.values()]).sum()
    answers = finetune.pipeline(run.out)((question, context), top_k=20)
    assert [each[1:3] for each in answers] == best[:20]
    assert [each.score for each in answers] == pytest.approx(
        [np.exp(scores[span]) / total for span in best[:20]], abs=1e-5
    )


def test_generated_texts_are_those_of_transformers(
    transformers, numbers, smaller_tiny, tmp_path, without_steps
):
    columns = {"text_column": "words", "label_column": "digits", "max_seq_length": 24}
    columns |= {"max_target_length": 8, "template": "{text} ="}
    out = tmp_path / "o"
    run = runner.run(config("tiny", numbers, "generate", out, ".tsv", **columns))
    best = str(run.out / "best")
    model = transformers.AutoModelForCausalLM.from_pretrained(best)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=f"{best}/tokenizer.json"
    )
    encoded = tokenizer("one two three =", return_tensors="pt")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    options = {"do_sample": False, "eos_token_id": end, "pad_token_id": end}
    tokens = model.generate(
        encoded.input_ids,
        attention_mask=encoded.attention_mask,
        max_new_tokens=8,
        **options,
    )[0, encoded.input_ids.shape[1] :]
    wanted = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert finetune.pipeline(run.out)("one two three").text == wanted
