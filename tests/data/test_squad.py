"""Questions: files good and bad, windows, rows, and the way back to texts."""

import functools
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data.squad import Questions, read_questions
from ffnlab.data.squad_windows import (
    Windows,
    pack_windows,
    rank_answers,
    texts_of,
    windows,
)
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.errors import InputError

NAME = "a.json"
CONTEXT = "Ada wrote it in 1843. Ada was 27."


def squad(*questions, context=CONTEXT):
    paragraphs = [{"context": context, "qas": list(questions)}]
    return {"data": [{"title": "Ada", "paragraphs": paragraphs}]}


def question(name="q1", answers=(("Ada", 0),), **more):
    made = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "Who?", "answers": made, **more}


GOOD = squad(
    question(answers=[("Ada", 22), ("1843", 16)], is_impossible=False),
    question("q2", [], is_impossible=True, plausible_answers=[{"text": "x"}]),
)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        "\ufeff" + json.dumps(GOOD),
        json.dumps(GOOD, indent=1).replace("\n", "\r\n"),
        "".join(
            json.dumps(each) + "\r\n\r\n"
            for each in (
                {"id": "q1", "question": "Who?", "context": CONTEXT,
                 "answers": {"text": ["Ada", "1843"], "answer_start": [22, 16]}},
                {"id": "q2", "question": "Who?", "context": CONTEXT,
                 "answers": {"text": [], "answer_start": []}},
            )
        ),
    ],
)  # fmt: skip
def test_a_file_is_the_same_however_it_was_saved(write, text):
    found = read_questions(write(text, "a.jsonl" if "\r\n\r\n" in text else NAME))
    assert [row["id"] for row in found.rows] == found.ids
    assert found.subset([1]).rows == [found.rows[1]]
    found, answers = found._replace(rows=[], layout=None), [["Ada", "1843"], []]
    assert found == Questions(
        ["q1", "q2"], ["Who?"] * 2, [CONTEXT] * 2, answers, [[22, 16], []], []
    )
    assert found.subset([1]) == Questions(["q2"], ["Who?"], [CONTEXT], [[]], [[]], [])


def test_without_answers_and_ids(write):
    bare = {"question": "Who?", "context": "Ada"}
    path = write(f"\n{json.dumps(bare)}\n{json.dumps({**bare, 'id': 7})}\n", "a.jsonl")
    found = read_questions(path, answered=False)
    assert found.ids == ["2", "7"] and found.answers == [[], []]
    path = write(json.dumps(squad({"id": "x", "question": "Who?"})))
    assert read_questions(path, answered=False).starts == [[]]
    with pytest.raises(InputError, match="answers should be texts, each with its answ"):
        read_questions(path)


def test_every_problem_is_told_in_one_pass(write):
    found = squad(
        question("a", [("Ada", 21)]),
        question("b", [("Eve", 0)]),
        question("a"),
        question("d", question=" "),
        question("e", is_impossible=True),
        question("f", [], is_impossible=False),
        question("g", [(None, 0), ("Ada", "0")], question=3),
        question(None),
        "no object",
        question("h", [("wrote", -29)]),
    )
    found["data"] += [{"paragraphs": 3}, {"paragraphs": [{"context": "", "qas": [{}]}]}]
    with pytest.raises(InputError) as error:
        read_questions(write(json.dumps(found)))
    told = str(error.value).replace(f"{write('', NAME)}: article ", "").split("\n")
    there = "Ada, paragraph 1, question"
    assert told == [
        f"{there} a: answer 'Ada' is not at 21, where ' Ad' is; it is at 22",
        f"{there} b: answer 'Eve' is not at 0, where 'Ada' is; it is nowhere in the "
        "context",
        f"{there} a: id 'a' is there already, {there} a",
        f"{there} d: question is empty",
        f"{there} e: is_impossible, and has answers",
        f"{there} f: no answer, and is_impossible is false",
        f"{there} g: question should be a text",
        f"{there} g: answer None should be a text",
        f"{there} g: answer_start '0' of 'Ada' should be a whole number",
        f"{there} 8: no id",
        "Ada, paragraph 1: qas 9: expected an object",
        f"{there} h: answer 'wrote' is not at -29, where 'Ada w' is; it is at 4",
        "2: expected an object with a list 'paragraphs'",
        "3, paragraph 1, question 1: no id",
        "3, paragraph 1, question 1: question should be a text",
        "3, paragraph 1, question 1: context is empty",
        "3, paragraph 1, question 1: answers should be texts, each with its "
        "answer_start",
    ]


def test_problems_of_json_lines(write):
    lines = ["{", "[]", json.dumps({"question": "Who?", "context": "Ada",
             "answers": {"text": ["Ada"], "answer_start": []}})]  # fmt: skip
    with pytest.raises(InputError) as error:
        read_questions(write("\n".join(lines * 10), "a.jsonl"))
    told = [line.split("a.jsonl:")[1] for line in str(error.value).split("\n")]
    assert told[0].startswith("1: not JSON") and len(told) == 21
    assert told[1] == "2: expected an object of JSON" and told[20] == " and 10 more"
    assert told[2] == "3: answers should be texts, each with its answer_start"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a", r"a.csv: expected .json of SQuAD or of objects with question"),
        ("a.json", "[]", "no question in it"),
        ("a.json", "[3]", "a.json:1: expected an object of JSON"),
        ("a.json", '["a"]', "a.json:1: expected an object of JSON"),
        ("a.json", "{}", "no list 'train'; there is none. Expected JSON lines, an arr"),
        ("a.json", '{"data": []}', "no question in it"),
        ("a.json", "{", "a.json:1: not JSON"),
        ("a.jsonl", b"\n\xff", "a.jsonl:2: not UTF-8"),
        ("a.jsonl", "\n", "a.jsonl: no question in it"),
    ],
)
def test_other_files_are_refused(write, name, text, message):
    with pytest.raises(InputError, match=message):
        read_questions(write(text, name))


@functools.cache
def tokenizer(kind):
    """One of single letters, or one of bytes."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, normalizers, pre_tokenizers, processors

    if kind == "bert":
        letters = "abcde.?"
        names = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            *letters,
            *("##" + c for c in letters),
        ]
        known = {name: number for number, name in enumerate(names)}
        inner = Inner(models.WordPiece(known, unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        names = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "Ġa"]
        inner = Inner(models.BPE({n: i for i, n in enumerate(names)}, [("Ġ", "a")]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=False
        )
    return Tokenizer(inner, kind)


contexts = st.text("abAé. \n", min_size=1, max_size=60).filter(str.strip)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    kind=st.sampled_from(["bert", "roberta"]),
    texts=st.lists(contexts, min_size=1, max_size=3),
    length=st.integers(9, 40),
    asked=st.integers(1, 30),
    draw=st.data(),
)
def test_windows(kind, texts, length, asked, draw):
    used, answers, starts = tokenizer(kind), [], []
    for text in texts:
        start = draw.draw(st.integers(0, len(text) - 1))
        end = draw.draw(st.integers(start + 1, len(text)))
        there = bool(text[start:end].strip())
        answers.append([text[start:end]] if there else [])
        starts.append([start] if there else [])
    names = [str(number) for number in range(len(texts))]
    questions = Questions(names, ["c" * asked] * len(texts), texts, answers, starts)
    special = 3 if kind == "bert" else 4
    room, least = length - special, min(length - special, (length + 1) // 2)
    stride = draw.draw(st.integers(0, least - 1))
    found = windows(used, questions, length, stride)
    kept = min(asked, room - least)
    lead, width = special - 1 + kept, room - kept
    number = 0
    for example_index, text in enumerate(texts):
        ids, spans = used.spans([text])[0]
        answer = answers[example_index][0] if answers[example_index] else ""
        letters = {
            starts[example_index][0] + i for i, c in enumerate(answer) if c.strip()
        }
        of_answer = [i for i, (s, e) in enumerate(spans) if letters & {*range(s, e)}]
        begins = [0]
        while begins[-1] + width < len(ids):
            begins.append(begins[-1] + width - stride)
        for begin in begins:
            row, target = found.tokens[number], found.target[number]
            piece = ids[begin : begin + width]
            here = slice(lead, lead + len(piece))
            assert row[here].tolist() == piece
            assert row[0] == used.around[0][0] and row[-1] == used.around[1][-1]
            assert len(row) == special + kept + len(piece) <= length
            assert (found.spans[number][here] == spans[begin : begin + width]).all()
            assert (np.delete(found.spans[number], np.s_[here], axis=0) == -1).all()
            types = (np.arange(len(row)) >= lead) * (kind == "bert")
            assert found.types[number].tolist() == types.tolist()
            assert found.question[number] == example_index
            if of_answer and {*of_answer} <= {*range(begin, begin + width)}:
                first, last = found.spans[number][target]
                assert text[first[0] : last[1]] == answer.strip()
            else:
                assert target.tolist() == [0, 0]
            number += 1
    assert number == len(found.tokens) == len(found.question) == len(found.target)


def test_windows_need_room():
    asked = Questions(["1"], ["a?"], ["a b c"], [["b"]], [[2]])
    with pytest.raises(
        InputError, match="^doc_stride: 4 should be from 0 to 3 for max_seq"
    ):
        windows(tokenizer("bert"), asked, 8, 4)
    with pytest.raises(InputError, match="length 3: no room beside 3 special tokens"):
        windows(tokenizer("bert"), asked, 3, 0)


def some():
    asked = Questions(
        ["x", "y", "z"],
        ["a?", "b c?", "d"],
        ["a b c d e a b c d e", "a b", "é c"],
        [["c d"], [], ["c"]],
        [[14], [], [2]],
    )
    return asked, windows(tokenizer("bert"), asked, 12, 2)


def test_rows_hold_every_window():
    _, found = some()
    rows = pack_windows(found, 24)
    x = {name.removeprefix("x/"): array for name, array in rows.arrays.items()}
    assert sorted(rows.example_index[rows.example_index >= 0]) == [
        *range(len(found.tokens))
    ]
    assert ((x["label_positions"] >= 0) == (rows.example_index >= 0)).all()
    assert (
        x["inside"].dtype == bool
        and x["y"].dtype == x["label_positions"].dtype == np.int32
    )
    inside = 0
    for row, slot in np.argwhere(rows.example_index >= 0):
        number, begin = rows.example_index[row, slot], x["label_positions"][row, slot]
        here = slice(begin, begin + len(found.tokens[number]))
        assert (x["tokens"][row, here] == found.tokens[number]).all()
        assert (x["types"][row, here] == found.types[number]).all()
        assert (x["segment_ids"][row] == number).sum() == len(found.tokens[number])
        wanted = found.spans[number][:, 0] >= 0
        wanted[0] = True
        assert (x["inside"][row, here] == wanted).all()
        inside += wanted.sum()
        assert (x["y"][row, slot] - begin == found.target[number]).all()
    assert (
        x["inside"].sum() == inside and (x["y"][rows.example_index < 0] == -100).all()
    )
    back = rows.flat(x["y"] - np.maximum(x["label_positions"], 0)[..., None])
    assert (back == found.target).all()


def test_right_spans_give_the_right_texts():
    asked, found = some()
    right = np.where(found.target[:, 0] > 0, 3.0, -3.0)
    texts, chances = texts_of(found, asked, found.target, right, np.zeros(len(right)))
    assert texts == {"x": "c d", "y": "", "z": "c"}
    assert all(0.5 < chance <= 1.0 for chance in chances.values())


@pytest.mark.parametrize("window", range(2))
def test_a_score_that_is_not_finite_makes_the_probability_nan(window):
    asked = Questions(["x", "y"], ["?", "?"], ["a b c", "a"], [[], []], [[], []])
    spans = np.array([[-1, -1], [0, 1], [2, 3]])
    found = Windows([], [], [spans] * 3, np.array([0, 0, 1]), np.zeros((3, 2)))
    best, scores = np.array([[1, 1], [2, 2], [1, 1]]), np.array([1.0, 2.0, 3.0])
    bad = scores.copy()
    bad[window] = np.nan
    for given in ((bad, scores), (scores, bad)):
        _, chances = texts_of(found, asked, best, *given)
        assert np.isnan(chances["x"]) and np.isfinite(chances["y"])


def test_the_answer_is_chosen_over_windows_and_no_answer():
    asked = Questions(["x", "y"], ["?", "?"], ["a b c", "a"], [[], []], [[], []])
    spans = np.array([[-1, -1], [0, 1], [2, 3], [4, 5]])
    none = np.full((2, 2), -1)
    found = Windows([], [], [spans, spans, none], np.array([0, 0, 1]), np.zeros((3, 2)))
    best = np.array([[1, 2], [2, 2], [0, 0]])
    choose = functools.partial(texts_of, found, asked, best)
    scores, nothing = np.array([1.0, 2.0, -1e30]), np.array([9.0, 2.5, -2.0])
    texts, chances = choose(scores, nothing)  # the least of 9 and 2.5 counts
    assert texts == {"x": "", "y": ""} and chances["y"] == 1.0
    every = np.exp([1.0, 2.0, 2.5])
    assert chances["x"] == pytest.approx(every[2] / every.sum())
    texts, chances = choose(scores, nothing, threshold=0.5)  # not more than that
    assert texts["x"] == "b" and chances["x"] == pytest.approx(every[1] / every.sum())
    assert choose(scores, nothing * 99, threshold=np.inf)[0] == {"x": "b", "y": ""}
    best[1] = best[0]  # the same words found twice are one candidate
    texts, chances = choose(scores, nothing, threshold=1.0)
    assert texts["x"] == "a b"
    assert chances["x"] == pytest.approx(every[1] / every[1:].sum())


def ranked(logits, longest=2, threshold=0.0, count=20):
    """The ranked answers of two windows, each of one token and a context of three."""
    asked = Questions(["x"], ["?"], ["a b c"], [[]], [[]])
    spans = np.array([[-1, -1], [0, 1], [2, 3], [4, 5]])
    found = Windows([], [], [spans] * 2, np.array([0, 0]), np.zeros((2, 2)))
    (answers,) = rank_answers(found, asked, logits, longest, threshold, count)
    return answers


def test_answers_are_ranked_as_by_all_pairs_of_tokens():
    logits = np.random.default_rng(0).normal(size=(2, 4, 2))
    scores = {}
    for i, j in ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3)):  # of at most two tokens
        span = (2 * i - 2, 2 * j - 1)
        scores[span] = max(window[i, 0] + window[j, 1] for window in logits)
    scores[0, 0] = min(window[0].sum() for window in logits)
    total = sum(map(np.exp, scores.values()))
    wanted = sorted(scores, key=scores.get, reverse=True)
    answers = ranked(logits)
    assert [each[:2] for each in answers] == wanted
    for *span, probability in answers:
        assert probability == pytest.approx(np.exp(scores[tuple(span)]) / total)
    assert len(ranked(logits, count=2)) == 3


def test_the_threshold_moves_no_answer_alone():
    logits = np.zeros((2, 4, 2))
    logits[:, 0] = 1.0  # no answer scores 2, each span 0
    assert ranked(logits, threshold=1.9)[0][:2] == (0, 0)
    answers = ranked(logits, threshold=2.0)
    assert answers[-1][:2] == (0, 0) and answers[-1][2] > answers[0][2]


def test_ranked_scores_that_are_not_finite_make_probabilities_nan():
    for place in ((0, 0, 0), (1, 2, 1)):
        logits = np.zeros((2, 4, 2))
        logits[place] = np.nan
        answers = ranked(logits, count=1)
        assert np.isnan([each[2] for each in answers]).all()
