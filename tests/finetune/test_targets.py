"""Numbers and sets of labels: trained, scored, written, saved and predicted again."""

import csv
import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from ffnlab import finetune
from ffnlab.data.targets import MULTI, REGRESSION
from ffnlab.errors import InputError
from ffnlab.finetune.config import Config
from ffnlab.finetune.in_memory import json_lines
from ffnlab.finetune.predict_files import PredictConfig, predict
from ffnlab.finetune.runner import prepare, run
from ffnlab.finetune.target_outputs import LabelSet, Score
from tests.tuned import SIZES, SMALL, WORDS

NAMES = ["first", "long", "second"]


def labels_of(words):
    """The labels of a text: which half of the words it has, and whether it is long."""
    halves = {"first": words[0] in WORDS[:13], "second": words[0] not in WORDS[:13]}
    return [name for name in NAMES if {**halves, "long": len(words) > 6}[name]][::-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts with a number from 100 to 120, and with one label or two."""
    folder, rng = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)
    for part, count in SIZES:
        halves = [WORDS[13 * k :][:13] for k in rng.integers(0, 2, count)]
        rows = [rng.choice(half, rng.integers(3, 9)).tolist() for half in halves]
        scores = 110 + 10 * np.where([row[0] in WORDS[:13] for row in rows], -1, 1)
        scores = scores + rng.normal(0, 0.5, count).round(2)
        with open(folder / f"{part}.csv", "w") as file:
            table = csv.writer(file)
            table.writerow(["id", "text", "label", "score"])
            for number, (row, score) in enumerate(zip(rows, scores, strict=True)):
                labels = "" if number % 8 == 7 else ";".join(labels_of(row))
                table.writerow([number, " ".join(row), labels, f"{score:.2f}"])
    return folder


def config(checkpoint, folder, out, kind, **options):
    parts = {part: str(folder / f"{part}.csv") for part, _ in SIZES}
    more = {REGRESSION: {"label_column": "score"}, MULTI: {"label_separator": ";"}}[
        kind
    ]
    more = {"problem_type": kind, "checkpoint": checkpoint, "out": str(out), **more}
    return Config(**{**SMALL, **parts, **more, **options})


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scored(bert, folder, tmp_path_factory):
    """A trained regression."""
    out = tmp_path_factory.mktemp("runs") / "scored"
    return run(config(bert, folder, out, REGRESSION, epochs=12.0))


def test_numbers_are_learned_and_scored_in_their_units(scored):
    scores = scored.scores["test"][0]
    rows = rows_of(scored.out / "predictions-test.csv")
    gold, predicted = (
        np.array([float(row[name]) for row in rows]) for name in ("score", "predicted")
    )
    close = {"rel": 1e-4}
    assert scores["pearson"] == pytest.approx(
        stats.pearsonr(predicted, gold)[0], **close
    )
    assert scores["spearman"] == pytest.approx(
        stats.spearmanr(predicted, gold)[0], **close
    )
    mse = metrics.mean_squared_error(gold, predicted)
    assert scores["mse"] == pytest.approx(mse, rel=1e-3)
    assert scores["pearson"] > 0.8 and mse < 60
    assert scores["headline"] == (scores["pearson"] + scores["spearman"]) / 2


def test_the_report_of_numbers_has_a_table_a_picture_and_differences(scored):
    report = (scored.out / "report.md").read_text()
    assert "| part | texts | Pearson | Spearman | mean squared error |" in report
    assert "targets of train: " in report and "predicted.png" in report
    assert (scored.out / "predicted.png").stat().st_size > 5000
    errors = (scored.out / "errors.md").read_text()
    assert "16 examples, the largest difference first." in errors
    sizes = [
        abs(row["difference"]) for row in scored.error_rows if row["part"] == "test"
    ]
    assert len(sizes) == 16 and sizes == sorted(sizes, reverse=True)
    assert "gives a text a number: `score`" in (scored.out / "README.md").read_text()


def test_a_saved_regression_predicts_in_the_units_of_the_files(
    scored, folder, tmp_path
):
    settings = json.loads((scored.out / "best" / "config.json").read_text())
    assert settings["problem_type"] == REGRESSION
    assert settings["id2label"] == {"0": "score"}
    pipe, rows = finetune.pipeline(scored.out), rows_of(folder / "test.csv")
    scores = pipe([row["text"] for row in rows])
    written = rows_of(scored.out / "predictions-test.csv")
    assert all(isinstance(score, Score) for score in scores) and pipe.labels == []
    assert [score.score for score in scores] == pytest.approx(
        [float(row["predicted"]) for row in written], rel=1e-5
    )
    with pytest.raises(InputError, match="^top_k: for labels; this model predicts a n"):
        pipe("w1 w2", top_k=2)
    given = {"run": str(scored.out), "input": str(folder / "test.csv")}
    predict(PredictConfig(**given, output=str(tmp_path / "p.csv")))
    same = (scored.out / "predictions-test.csv").read_bytes()
    assert (tmp_path / "p.csv").read_bytes() == same
    with pytest.raises(InputError, match="^task_output: for labels; this model predic"):
        predict(PredictConfig(**given, task_output="labels"))


@pytest.fixture(scope="module")
def labelled(bert, folder, tmp_path_factory):
    """A multi-label classification of parameters that no step has changed."""
    from ffnlab.finetune import trainer
    from tests.tuned import initial_runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train", initial_runs)
        out = tmp_path_factory.mktemp("runs") / "labelled"
        return run(config(bert, folder, out, MULTI))


def test_sets_of_labels_are_scored_at_the_threshold_of_dev(labelled):
    dev, test = (labelled.scores[part][0] for part in ("dev", "test"))
    assert dev["threshold"] == test["threshold"]
    for part, scores in (("dev", dev), ("test", test)):
        rows = rows_of(labelled.out / f"predictions-{part}.csv")
        gold, predicted = (
            np.array([[name in row[key].split(";") for name in NAMES] for row in rows])
            for key in ("label", "predicted")
        )
        for key, average in (("micro", "micro"), ("macro", "macro")):
            f1 = metrics.f1_score(gold, predicted, average=average, zero_division=0)
            assert scores[key] == pytest.approx(f1, abs=1e-12)
        assert scores["subset"] == metrics.accuracy_score(gold, predicted)
        assert [*scores["types"]] == NAMES


def test_the_report_of_labels_has_their_scores_and_errors(labelled):
    report = (labelled.out / "report.md").read_text()
    assert "micro F1, % | macro F1, %" in report and "at the threshold" in report
    assert "train: 3 labels, " in report and "texts have none" in report
    assert (labelled.out / "types.png").exists()
    row = labelled.error_rows[0]
    label, guess = (
        set(filter(None, row[k].split(" | "))) for k in ("label", "predicted")
    )
    missed = set(filter(None, row["missed"].split(" | ")))
    assert label != guess and missed == label - guess
    card = (labelled.out / "README.md").read_text()
    assert "gives a text any number of labels: `first`, `long`, `second`" in card


def test_a_saved_model_keeps_its_threshold_and_separator(labelled, folder, tmp_path):
    settings = json.loads((labelled.out / "best" / "config.json").read_text())
    assert settings["problem_type"] == MULTI
    assert settings["ffnlab_use"]["threshold"] == labelled.scores["dev"][0]["threshold"]
    given = {"run": str(labelled.out), "input": str(folder / "test.csv")}
    predict(PredictConfig(**given, output=str(tmp_path / "p.csv")))
    same = (labelled.out / "predictions-test.csv").read_bytes()
    assert (tmp_path / "p.csv").read_bytes() == same
    pipe, rows = finetune.pipeline(labelled.out), rows_of(tmp_path / "p.csv")
    sets = pipe([row["text"] for row in rows])
    assert all(isinstance(each, LabelSet) for each in sets)
    assert [";".join(each.labels) for each in sets] == [r["predicted"] for r in rows]
    ranked = pipe("w1 w2", top_k=3)
    assert {each.text for each in ranked} == set(NAMES) == set(pipe.labels)
    assert [each.probability for each in ranked] == sorted(
        (each.probability for each in ranked), reverse=True
    )
    (tmp_path / "t.jsonl").write_text('{"id": 3, "text": "w1 w2"}\n')
    given["input"], out = str(tmp_path / "t.jsonl"), tmp_path / "p.jsonl"
    predict(PredictConfig(**given, output=str(out)))
    held = json.loads(out.read_text())
    assert held["predicted"] == pipe("w1 w2").labels and held["id"] == 3
    predict(PredictConfig(**given, output=str(out), task_output="labels"))
    assert len(json.loads(out.read_text())["labels"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", [REGRESSION, MULTI])
def test_adapters_and_several_seeds_work_too(bert, folder, tmp_path, kind):
    options = {"method": "lora", "seeds": 2, "epochs": 1.0, "rank": 2}
    result = run(config(bert, folder, tmp_path / "o", kind, **options))
    rows = rows_of(result.out / "predictions-test.csv")
    for directory in (result.out / "best", result.out / "adapter"):
        predicted = finetune.pipeline(directory)([row["text"] for row in rows])
        if kind == REGRESSION:
            wanted = [float(row["predicted"]) for row in rows]
            assert [each.score for each in predicted] == pytest.approx(wanted, rel=1e-4)
        else:
            joined = [";".join(each.labels) for each in predicted]
            assert joined == [row["predicted"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [REGRESSION, MULTI])
def test_an_exported_program_gives_numbers_and_probabilities(
    request, kind, scored, labelled, tmp_path
):
    from jax import export

    pipe = finetune.pipeline((scored if kind == REGRESSION else labelled).out)
    files = pipe.export(tmp_path / "m")
    program = export.deserialize(files[0].read_bytes())
    tokens = np.array([pipe.model.tokenizer.texts(["w1 w2"], None, 14).tokens[0]])
    at, types = np.zeros((1, 1), np.int32), np.zeros_like(tokens)
    outputs = np.asarray(program.call(tokens, tokens > -1, types, at))[0, 0]
    if kind == REGRESSION:
        assert outputs.tolist() == pytest.approx([pipe("w1 w2").score], rel=1e-5)
    else:
        ranked = {each.text: each.probability for each in pipe("w1 w2", top_k=3)}
        wanted = [ranked[name] for name in pipe.labels]
        assert outputs.tolist() == pytest.approx(wanted, abs=1e-5)


def test_labels_that_train_lacks_are_refused_or_missed(bert, folder, tmp_path):
    (tmp_path / "dev.csv").write_text("text,label\nw1 w2,first;odd\nw3,\n")
    given = {"dev": str(tmp_path / "dev.csv"), "test": None}
    with pytest.raises(
        InputError, match=r"dev.csv: labels .*'odd' \(1, first in line 2"
    ):
        prepare(config(bert, folder, tmp_path / "o", MULTI, **given))
    task = prepare(
        config(bert, folder, tmp_path / "o", MULTI, unseen_labels="ignore", **given)
    )
    assert task.gold["dev"].tolist() == [[True, False, False], [False] * 3]
    assert task.unknown["dev"].tolist() == [1, 0]
    scores = task.score("dev", task.gold["dev"].astype(float))
    assert (scores["recall"], scores["precision"], scores["subset"]) == (0.5, 1.0, 0.5)
    assert task.rows["train"].arrays["y"].shape[2] == 3
    y = task.rows["dev"].arrays["y"]
    assert set(y[task.rows["dev"].example_index < 0].ravel()) <= {-100}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"task": "tag", "problem_type": MULTI},
            "problem_type: for task=classify, pair",
        ),
        ({"problem_type": "multi"}, "problem_type: unknown 'multi'"),
        ({"label_separator": ";"}, "label_separator: not for problem_type=single_labe"),
        (
            {"problem_type": MULTI, "label_separator": " "},
            "label_separator: it is blank",
        ),
        (
            {"problem_type": MULTI, "class_weights": "balanced"},
            "class_weights: not for",
        ),
        *(
            (
                {"problem_type": REGRESSION, name: value},
                f"{name}: not for problem_type=r",
            )
            for name, value in (
                ("label_smoothing", 0.1),
                ("class_weights", "balanced"),
                ("r_drop_alpha", 1.0),
                ("unseen_labels", "ignore"),
                ("label_names", ("a", "b")),
                ("label_separator", ";"),
            )
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(options, match):
    with pytest.raises(InputError, match=f"^{match}"):
        Config(checkpoint="tiny", train="a.csv", dev="b.csv", **options)


@pytest.mark.parametrize("kind", [REGRESSION, MULTI])
def test_a_split_is_at_random(kind):
    given = {"checkpoint": "tiny", "train": "a.csv", "split": (0.8, 0.1, 0.1)}
    assert Config(**given, problem_type=kind).stratify is False
    with pytest.raises(InputError, match="^stratify: it needs .* with one label for"):
        Config(**given, problem_type=kind, stratify=True)


@pytest.mark.parametrize(
    ("kind", "data", "rows"),
    [
        (REGRESSION, [("a", 2.5), ("b", np.int64(3))], [2.5, 3.0]),
        (REGRESSION, {"text": ["a", "b"], "score": np.array([2.5, 3])}, [2.5, 3.0]),
        (MULTI, [("a", ["x", "y"]), ("b", [])], [["x", "y"], []]),
        (MULTI, [("a", "x|y"), ("b", np.array(["x"]))], [["x", "y"], ["x"]]),
    ],
)
def test_values_hold_numbers_and_lists(kind, data, rows):
    given = Config(checkpoint="tiny", train="a", dev="b", problem_type=kind)
    read = [json.loads(line) for line in json_lines("train", data, given).splitlines()]
    assert [[*row.values()][1] for row in read] == rows


@pytest.mark.parametrize(
    ("kind", "value", "match"),
    [
        (REGRESSION, "high", "should be a finite number, got 'high'"),
        (REGRESSION, float("nan"), "should be a finite number, got nan"),
        (REGRESSION, None, "should be a finite number, got None"),
        (MULTI, None, "should be a list of labels"),
        (MULTI, 2.5, "should be a list of labels"),
        (MULTI, ["x", "x"], "has 'x' twice"),
        (
            None,
            ["x"],
            "label should be one label, got a list, .*problem_type=multi_lab",
        ),
    ],
)
def test_values_of_another_kind_name_their_row(kind, value, match):
    given = Config(checkpoint="tiny", train="a", dev="b", problem_type=kind)
    with pytest.raises(InputError, match=f"^train: row 2: .*{match}"):
        good = {REGRESSION: 1.0, MULTI: ["x"]}.get(kind, "x")
        json_lines("train", [("a", good), ("b", value)], given)


def test_columns_of_signs_are_labels_of_values_too():
    given = Config(
        checkpoint="tiny",
        train="a",
        dev="b",
        problem_type=MULTI,
        label_column="toxic,rude",
    )
    text = json_lines("train", {"text": ["a"], "toxic": [1.0], "rude": [False]}, given)
    assert json.loads(text) == {"text": "a", "toxic": 1, "rude": 0}
