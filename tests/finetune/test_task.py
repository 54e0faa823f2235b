"""Answers, texts and relations: what the tasks of fine-tuning share."""

import dataclasses
import json
import operator
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import launch
from ffnlab import finetune
from ffnlab.data import read_questions
from ffnlab.errors import InputError
from ffnlab.finetune import finetuned_model, predict_files, runner
from ffnlab.finetune.question_answering import QuestionAnsweringTask
from tests.tuned import config

READABLE = {"text_column": "words", "label_column": "digits", "max_seq_length": 24,
            "max_target_length": 8, "template": "{text} ="}  # fmt: skip


@pytest.fixture(scope="module")
def answering(bert, asked, tmp_path_factory):
    """What answers questions on contexts of several windows."""
    out = tmp_path_factory.mktemp("runs") / "qa"
    more = {
        "max_seq_length": 16,
        "doc_stride": 4,
        "max_answer_length": 2,
        "epochs": 30.0,
    }
    return runner.run(config(bert, asked, "qa", out, ".json", **more))


@pytest.fixture(scope="module")
def writing(numbers, smaller_tiny, tmp_path_factory):
    """What writes digits, from scratch."""
    out = tmp_path_factory.mktemp("runs") / "generate"
    more = {"epochs": 40.0, "learning_rate": 3e-3, "evaluations": 2, "batch_size": 32}
    return runner.run(
        config("tiny", numbers, "generate", out, ".tsv", **READABLE, **more)
    )


def test_answers_are_found(answering, asked):
    scores = answering.scores["test"][0]
    assert scores["f1"] > 0.9 and scores["types"]["unanswerable"]["f1"] > 0.9
    assert scores["words"]["other"]["support"] == 32
    found = json.loads((answering.out / "predictions-test.json").read_text())
    held = json.loads((asked / "test.json").read_text())["data"][0]["paragraphs"]
    assert list(found) == [each["qas"][0]["id"] for each in held]
    for each in held:
        assert found[each["qas"][0]["id"]] in ["", *each["context"].split()]


def test_new_questions_have_the_same_answers(answering, asked, tmp_path):
    out = tmp_path / "p.json"
    given = predict_files.PredictConfig(
        str(answering.out), str(asked / "test.json"), str(out)
    )
    assert predict_files.predict(given) == 32
    wanted = json.loads((answering.out / "predictions-test.json").read_text())
    assert out.read_text() == (answering.out / "predictions-test.json").read_text()
    context = json.loads((asked / "test.json").read_text())
    context = context["data"][0]["paragraphs"][1]["context"]
    (tmp_path / "in.txt").write_text(f"w25 w24?\t{context}\n")
    out = tmp_path / "p.txt"
    predict_files.predict(
        predict_files.PredictConfig(
            str(answering.out), str(tmp_path / "in.txt"), str(out)
        )
    )
    answer, probability, *rest = out.read_text().rstrip("\n").split("\t")
    assert answer == wanted["test1"] and 0 < float(probability) <= 1
    assert rest == ["w25 w24?", context]


def test_answers_have_offsets_and_are_ranked(answering, asked, tmp_path):
    pipe = finetune.pipeline(answering.out, batch_size=5)
    held = json.loads((asked / "test.json").read_text())["data"][0]["paragraphs"]
    pairs = [(each["qas"][0]["question"], each["context"]) for each in held]
    written = json.loads((answering.out / "predictions-test.json").read_text())
    answers = pipe(pairs)
    assert [each.text for each in answers] == [*written.values()]
    assert {"" in written.values()} == {True}
    ranked = pipe(pairs, top_k=4)
    for (_, context), answer, best in zip(pairs, answers, ranked, strict=True):
        assert 0 < answer.score <= 1
        assert best[0][:3] == answer[:3] and len(best) == 4
        scores = [each.score for each in best]
        assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-6
        assert len({each[1:3] for each in best}) == 4
        for each in (answer, *best):
            assert context[each.start : each.end] == each.text
    question, context = pairs[0]
    one = pipe(question=question, context=context)
    assert one[:3] == answers[0][:3] and one.score == pytest.approx(answers[0].score)
    with pytest.raises(InputError, match="^texts: given beside question and context"):
        pipe(pairs, question="w1")
    with pytest.raises(InputError, match="^texts: text 1 should be a pair of question"):
        pipe(question="w1")
    given = {"run": str(answering.out), "output": str(tmp_path / "out")}
    given |= {"input": str(asked / "test.json"), "task_output": "answers", "top_k": 2}
    predict_files.predict(predict_files.PredictConfig(**given))
    lines = [*map(json.loads, (tmp_path / "out").read_text().splitlines())]
    assert [line["id"] for line in lines] == [*written]
    assert [line["answers"][0]["text"] for line in lines] == [*written.values()]
    assert all(len(line["answers"]) == 2 for line in lines)


def test_texts_are_generated_with_options_of_decoding(writing, numbers):
    pipe = finetune.pipeline(writing.out)
    text = (numbers / "test.tsv").read_text().splitlines()[1].split("\t")[0]
    greedy = pipe(text)
    assert pipe([text], temperature=0) == [greedy] and greedy.probability is None
    assert pipe(text, top_k=1, seed=3) == greedy
    assert len(pipe(text, max_target_length=2).text) < len(greedy.text)
    hot = [pipe(text, temperature=9.0, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    for options, message in (
        ({"top_p": 2.0}, "top_p: 2 should be at most 1"),
        ({"num_beams": 2, "top_k": 3}, "num_beams: a beam search does not sample"),
        ({"max_target_length": 99}, "max_seq_length=24, max_target_length=99: no room"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            pipe(text, **options)


def test_texts_are_written(writing, numbers):
    scores = writing.scores["test"][0]
    assert scores["exact"] > 0.8 and scores["bleu"] > 0.8
    lines = (writing.out / "predictions-test.tsv").read_text().splitlines()
    *kept, written = zip(*(line.split("\t") for line in lines), strict=True)
    given = (numbers / "test.tsv").read_text().splitlines()
    assert ["\t".join(cells) for cells in zip(*kept, strict=True)] == given
    right = sum(map(operator.eq, kept[1], written))
    assert right == round(scores["exact"] * (len(given) - 1))
    settings = json.loads((writing.out / "best" / "config.json").read_text())
    assert settings["architectures"] == ["GPT2LMHeadModel"]


@pytest.mark.parametrize("beam", [None, 2])
def test_new_texts_are_written_the_same_way(writing, numbers, tmp_path, beam):
    rows = (numbers / "test.tsv").read_text().splitlines()[1:9]
    (tmp_path / "in.txt").write_text("".join(r.split("\t")[0] + "\n" for r in rows))
    out = tmp_path / "out.txt"
    given = predict_files.PredictConfig(
        str(writing.out), str(tmp_path / "in.txt"), str(out), num_beams=beam
    )
    assert predict_files.predict(given) == 8
    lines = (writing.out / "predictions-test.tsv").read_text().splitlines()[1:9]
    wanted = [line.split("\t")[2] for line in lines]
    same = sum(
        a == b for a, b in zip(out.read_text().splitlines(), wanted, strict=True)
    )
    assert same == 8 if beam is None else same >= 7


STANDALONE = """
import json, sys
sys.modules["ffnlab"] = None  # importing it is an error
import numpy as np
import tokenizers
from jax import export

path, text = sys.argv[1:]
model = export.deserialize(open(path, "rb").read())
tokenizer = tokenizers.Tokenizer.from_file(path + ".tokenizer.json")
ids = tokenizer.encode(text).ids
for _ in range(8):
    tokens = np.array([ids], np.int32)
    ids.append(int(np.asarray(model.call(tokens, tokens >= 0))[0, -1].argmax()))
print(tokenizer.decode(ids[:-1]))
"""


def test_an_exported_decoder_writes_without_ours(writing, tmp_path):
    path = tmp_path / "model.jax"
    predict_files.predict(
        predict_files.PredictConfig(str(writing.out), export=str(path))
    )
    line = (writing.out / "predictions-test.tsv").read_text().splitlines()[1]
    source, _, wanted = line.split("\t")
    got = subprocess.run(
        [sys.executable, "-c", STANDALONE, str(path), source + " ="],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert got.returncode == 0, got.stderr
    assert wanted in got.stdout


def test_an_exported_answerer_gives_logits(answering, tmp_path):
    from jax import export

    path = tmp_path / "model.jax"
    predict_files.predict(
        predict_files.PredictConfig(str(answering.out), export=str(path))
    )
    model = export.deserialize(path.read_bytes())
    tokens = np.array([[2, 8, 9, 3, 5, 11, 12, 3]], np.int32)
    types = (np.arange(8) > 3).astype(np.int32)[None]
    found, mask = finetuned_model.read_finetuned(answering.out), tokens > 0
    x = {"tokens": tokens, "mask": mask, "types": types, "segment_ids": 0 * tokens,
         "inside": mask}  # fmt: skip
    wanted = jax.jit(lambda params, x: found.model.apply(params, x, None)[0])
    np.testing.assert_allclose(
        model.call(tokens, mask, types), wanted(found.params, x), rtol=1e-5, atol=1e-6
    )


def test_the_card_says_what_was_done(answering, writing):
    card = (answering.out / "best" / "README.md").read_text()
    assert card.startswith("---\npipeline_tag: question-answering\n")
    assert "AutoModelForQuestionAnswering" in card and "`--doc_stride=4`" in card
    assert answering.table.markdown() in card
    card = (writing.out / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "from scratch" in card


def test_a_split_keeps_the_questions_of_a_context_together(bert, asked, tmp_path):
    held = json.loads((asked / "train.json").read_text())
    for each in held["data"][0]["paragraphs"]:
        each["qas"].append({**each["qas"][0], "id": each["qas"][0]["id"] + "b"})
    (tmp_path / "all.json").write_text(json.dumps(held))
    given = config(bert, tmp_path, "qa", None, ".json", split=(0.6, 0.2, 0.2),
                   train=str(tmp_path / "all.json"), dev=None, test=None)  # fmt: skip
    parts = runner.prepare(given).examples
    held = [set(part.contexts) for part in parts.values()]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    assert [len(part.ids) for part in parts.values()] == [116, 38, 38]


def test_what_does_not_fit_is_said(bert, files, numbers, tmp_path):
    with pytest.raises(InputError, match="needs a decoder such as GPT-2; .* a bert"):
        runner.prepare(config(bert, numbers, "generate", None, ".tsv", **READABLE))
    with pytest.raises(InputError, match="template"):
        odd = {**READABLE, "template": "no text"}
        runner.prepare(config("tiny", numbers, "generate", None, ".tsv", **odd))
    columns = {"text_column": "2", "label_column": "1"}
    with pytest.raises(InputError, match="^augment: mention_replace needs task=tag"):
        runner.prepare(config(bert, files, "classify", None, ".tsv", **columns,
                                augment=("mention_replace",)))  # fmt: skip
    with pytest.raises(InputError, match="train.conll: expected .json of SQuAD"):
        runner.prepare(config(bert, files, "qa", None, ".conll"))


def test_nothing_is_half_written(answering, tmp_path):
    path, out = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_text("w25?\tw1 w2\nno tab\n")
    with pytest.raises(InputError, match="in.txt:2: expected question, context"):
        predict_files.predict(
            predict_files.PredictConfig(
                str(answering.out), str(path), str(out), batch_size=1
            )
        )
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(InputError, match="^num_beams: for generate, not qa"):
        predict_files.predict(
            predict_files.PredictConfig(str(answering.out), str(path), num_beams=2)
        )


def test_two_entities_in_one_text(bert, tmp_path, without_steps):
    rng, rows = np.random.default_rng(4), []
    for _ in range(96):
        one, two = rng.choice(26, 2, replace=False)
        kind = "same" if one % 2 == two % 2 else "other"
        rows.append(f"{kind}\tw9 <a>w{one}</a> w3 <b>w{two}</b>\n")
    (tmp_path / "all.tsv").write_text("".join(rows))
    whole = finetune.Config(
        task="pairs", checkpoint=bert, train=str(tmp_path / "all.tsv"),
        split=(0.6, 0.2, 0.2), text_column="2", label_column="1", marks=("a", "b"),
        max_seq_length=14, out=str(tmp_path / "o"),
    )  # fmt: skip
    found = runner.run(whole)
    lines = (found.out / "predictions-test.tsv").read_text().splitlines()
    assert len(lines) == 19 and all("<a>w" in line for line in lines)
    (tmp_path / "in.txt").write_text("<a>w1</a> and <b>w2</b>\nw1 and w2\n")
    given = predict_files.PredictConfig(str(found.out), str(tmp_path / "in.txt"))
    with pytest.raises(InputError, match="in.txt:2: expected one <a>…</a>"):
        predict_files.predict(given)
    (tmp_path / "bad.tsv").write_text("same\tw1 w2\n" + rows[0])
    bad = dataclasses.replace(whole, train=str(tmp_path / "bad.tsv"))
    with pytest.raises(InputError, match="bad.tsv:1: expected one <a>…</a> in it"):
        runner.prepare(bad)


def test_the_flag_file_repeats_a_writing(writing):
    given = launch.parse(finetune.Config, ["x", f"--flagfile={writing.out}/flags"])
    assert given.template == "{text} =" and given.checkpoint == "tiny"


def test_one_file_without_parts_is_refused_before_a_run(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a", "label": "b"}]')
    given = finetune.Config(checkpoint="tiny", train=str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="^dev: is needed, .*a.json has no parts"):
        runner.prepare(given)
    named = finetune.Config(checkpoint="tiny", train="a", dev="b", label_names=("x",))
    assert named.label_names == ("x",)
    with pytest.raises(InputError, match="^label_names: for task=classify, pairs, tag"):
        finetune.Config(
            checkpoint="a", task="qa", train="a", dev="b", label_names=("x",)
        )


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_answers_are_written_as_their_questions_came(tmp_path, kind):
    row = {"id": "q", "question": "Who?", "context": "Ada ran.",
           "answers": {"text": ["Ada"], "answer_start": [0]}}  # fmt: skip
    path = tmp_path / "a.json"
    lines = [json.dumps({**row, "id": name}) + "\n" for name in "qr"]
    path.write_text(json.dumps([row]) if kind == "json" else "".join(lines))
    task = SimpleNamespace(
        config=SimpleNamespace(file_of=lambda part: str(path)),
        examples={"dev": read_questions(path)},
    )
    ids = task.examples["dev"].ids
    predicted = dict.fromkeys(ids, "Ada"), dict.fromkeys(ids, 0.5)
    QuestionAnsweringTask.write(task, "dev", predicted, tmp_path)
    text = (tmp_path / f"predictions-dev.{kind}").read_text()
    if kind == "json":
        assert json.loads(text) == {"q": "Ada"}
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["id"] for row in rows] == ids and len(ids) == 2
        assert all(row["predicted"] == "Ada" for row in rows)
