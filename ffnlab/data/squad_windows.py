"""Questions with pieces of their contexts, in rows, and their answers as texts.

    pieces = windows(tokenizer, train, max_seq_length=384, doc_stride=128)
    rows = pack_windows(pieces, width=384)
    texts, probabilities = texts_of(pieces, train, spans, scores, null_scores)

A context that is too long for a model is cut into overlapping windows, each of which
follows the same question.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE
from ffnlab.data.packed_rows import Rows, pack
from ffnlab.data.squad import Questions
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.errors import InputError

Span = tuple[int, int, float]  # first character, the one after the last, probability


class Windows(NamedTuple):
    """Questions with pieces of their contexts.

    Attributes:
      tokens: `[CLS] question [SEP] piece [SEP]`, with the special tokens of the
        checkpoint; int32 `[T]` each.
      types: int32 `[T]` each: 1 for the piece, if the checkpoint has such types.
      spans: The first character of each token in the context and the one after its
        last, int32 `[T, 2]` each; −1 for a token at which no answer starts or ends.
      question: The number of the window's question, int32 `[M]`.
      target: The tokens at which the first right answer starts and ends, int32
        `[M, 2]`; 0, the first token of the window, if it is not wholly inside.
    """

    tokens: list[np.ndarray]
    types: list[np.ndarray]
    spans: list[np.ndarray]
    question: np.ndarray
    target: np.ndarray


def windows(
    tokenizer: Tokenizer,
    questions: Questions,
    max_seq_length: int = 384,
    doc_stride: int = 128,
) -> Windows:
    """Cuts contexts into windows, each after its question.

    Args:
      tokenizer: The tokenizer of the checkpoint.
      questions: The questions, with or without answers.
      max_seq_length: The maximum number of tokens of a window, special ones included. A
        question is cut if it takes more than half of them.
      doc_stride: The number of context tokens that a window shares with the one
        before.

    Raises:
      InputError: `max_seq_length` leaves no room, or `doc_stride` is too large for it.

    Source: the windows of Devlin et al. 2019 for SQuAD; there `stride` is the step.
    """
    room = tokenizer.room(max_seq_length, paired=True)
    least = min(room, (max_seq_length + 1) // 2)  # tokens for the context
    if not 0 <= doc_stride < least:
        raise InputError(
            f"doc_stride: {doc_stride} should be from 0 to {least - 1} for "
            f"max_seq_length={max_seq_length}"
        )
    contexts = list(dict.fromkeys(questions.contexts))
    known = dict(zip(contexts, tokenizer.spans(contexts), strict=True))
    asked = tokenizer.spans([question.strip() for question in questions.questions])
    tokens, types, spans, example_index, target = [], [], [], [], []
    for number, (question, _) in enumerate(asked):
        question = question[: room - least]
        context, places = known[questions.contexts[number]]
        answer = _answer_tokens(places, questions, number)
        width = room - len(question)
        for begin in range(0, max(len(context) - doc_stride, 1), width - doc_stride):
            piece = context[begin : begin + width]
            row, kinds, lead = tokenizer.joined(question, piece)
            tokens.append(np.array(row, np.int32))
            types.append(np.array(kinds, np.int32))
            spans.append(np.full((len(row), 2), -1, np.int32))
            spans[-1][lead : lead + len(piece)] = places[begin : begin + width]
            example_index.append(number)
            inside = answer and answer[0] >= begin and answer[1] < begin + width
            shifted = [lead + place - begin for place in answer]
            target.append(shifted if inside else [0, 0])
    return Windows(
        tokens,
        types,
        spans,
        np.array(example_index, np.int32),
        np.array(target, np.int32),
    )


def _answer_tokens(spans: np.ndarray, questions: Questions, number: int) -> list[int]:
    """Returns the first and last token of the first right answer, if there is one."""
    if not questions.answers[number]:
        return []
    text, start = questions.answers[number][0], questions.starts[number][0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    inside = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    return [int(inside[0]), int(inside[-1])] if len(inside) else []


def pack_windows(pieces: Windows, width: int, mix: int | None = None) -> Rows:
    """Packs windows into rows, several per row.

    Args:
      pieces: The result of `windows`.
      width: T, the number of tokens of a row; no window may be longer.
      mix: See `packed_rows.pack`.

    Returns:
      `Rows` in which the label positions are the first tokens of the windows and
      `example_index` is the number of the window. Also x/inside bool `[N, T]`, True for
      tokens at which an answer may start or end, and for the first token of each
      window, which stands for no answer. y is int32 `[N, K, 2]`, the positions of start
      and end in the row, −100 if there is no window.

    >>> one = Windows([np.array([1, 5, 2, 6, 7, 2])], [np.zeros(6, int)],
    ...               [np.array([[-1, -1]] * 3 + [[0, 3], [4, 6]] + [[-1, -1]])],
    ...               np.zeros(1, int), np.array([[3, 4]]))
    >>> rows = pack_windows(one, width=7)
    >>> rows.arrays["x/inside"].astype(int).tolist(), rows.arrays["y"].tolist()
    ([[1, 0, 0, 1, 1, 0, 0]], [[[3, 4]]])
    """
    rows = pack(Encoded(pieces.tokens, pieces.types, [], 0), None, width, mix)
    label_positions = rows.arrays["x/label_positions"]
    inside = np.zeros(rows.arrays["x/mask"].shape, bool)
    y = np.full((*label_positions.shape, 2), IGNORE, np.int32)
    for row, slot in np.argwhere(rows.example_index >= 0):
        number, begin = rows.example_index[row, slot], label_positions[row, slot]
        spans = pieces.spans[number]
        inside[row, begin : begin + len(spans)] = spans[:, 0] >= 0
        inside[row, begin] = True
        y[row, slot] = begin + pieces.target[number]
    return rows._replace(arrays={**rows.arrays, "x/inside": inside, "y": y})


def texts_of(
    pieces: Windows,
    questions: Questions,
    spans: np.ndarray,
    scores: np.ndarray,
    null_scores: np.ndarray,
    threshold: float = 0.0,
) -> tuple[dict[str, str], dict[str, float]]:
    """Returns one answer to each question, and its probability, see `choose_answers`.

    Returns:
      By id the text, empty for no answer, and the probability.
    """
    chosen = choose_answers(pieces, questions, spans, scores, null_scores, threshold)
    texts, probabilities = {}, {}
    for number, name in enumerate(questions.ids):
        begin, end, probabilities[name] = chosen[number]
        texts[name] = questions.contexts[number][begin:end]
    return texts, probabilities


@np.errstate(invalid="ignore")
def choose_answers(
    pieces: Windows,
    questions: Questions,
    spans: np.ndarray,
    scores: np.ndarray,
    null_scores: np.ndarray,
    threshold: float = 0.0,
) -> list[Span]:
    """Returns one answer to each question.

    The answer is the best span of all windows, unless the score of no answer, in the
    window where it is least, exceeds that of the span by more than `threshold`. The
    candidates are the best span of each window and no answer; the probability is the
    softmax of their scores. A span that two windows share is one candidate.

    Args:
      pieces: The result of `windows`.
      questions: The questions of those windows.
      spans: The start and end token of each window's best span, int `[M, 2]`, counted
        from the first token of the window.
      scores: The scores of these spans, `[M]`.
      null_scores: The score of no answer in each window, `[M]`.
      threshold: See above; infinity answers every question that has a candidate.

    Returns:
      For each question the first character of its answer, the one after its last, both
      0 for no answer, and the probability, in [0, 1]; NaN if a score is not finite.

    Source: Devlin et al. 2019, section 4.3.
    """
    candidates: list[dict] = [{} for _ in questions.ids]
    least = np.full(len(questions.ids), np.inf)
    np.minimum.at(least, pieces.question, null_scores)
    for window, (start, end) in enumerate(spans):
        begin, stop = pieces.spans[window][start, 0], pieces.spans[window][end, 1]
        if begin >= 0:  # the window has tokens of the context
            _add(candidates[pieces.question[window]], begin, stop, scores[window])
    answers = []
    for own, null in zip(candidates, least.tolist(), strict=True):
        span = max(own, key=own.__getitem__, default=None)
        if span is not None and null - own[span] > threshold:
            span = None
        chosen, every = own.get(span, null), np.array([*own.values(), null])
        weights = np.exp(every - every.max())
        probability = float(np.exp(chosen - every.max()) / weights.sum())
        answers.append((*(span or (0, 0)), probability))
    return answers


def _add(candidates: dict, begin: int, stop: int, score: float) -> None:
    """Adds a span to candidates; one that is there keeps its best score, NaN stays."""
    before = candidates.get((int(begin), int(stop)), -np.inf)
    candidates[int(begin), int(stop)] = float(np.maximum(before, score))


@np.errstate(invalid="ignore")
def rank_answers(
    pieces: Windows,
    questions: Questions,
    logits: Sequence[np.ndarray],
    max_answer_length: int = 30,
    threshold: float = 0.0,
    count: int = 20,
) -> list[list[Span]]:
    """Returns the best answers to each question, no answer among them.

    The first is that of `choose_answers`. The probability is the softmax of the scores
    of the `count` best spans of all windows and of no answer.

    Args:
      pieces: The result of `windows`.
      questions: The questions of those windows.
      logits: The logits of start and end at the tokens of each window, `[T, 2]` each.
      max_answer_length: The maximum number of tokens of a span.
      threshold: See `choose_answers`.
      count: The number of spans.

    Returns:
      For each question at most `count` + 1 answers, the best first, each as in
      `choose_answers`.

    Source: the n best answers of run_squad.py, Devlin et al. 2019.
    """
    candidates: list[dict] = [{} for _ in questions.ids]
    least = np.full(len(questions.ids), np.inf)
    for window, number in enumerate(pieces.question):
        starts, ends = logits[window].T
        least[number] = np.minimum(least[number], starts[0] + ends[0])
        places = pieces.spans[window]
        for i, j in _best_pairs(starts, ends, places, max_answer_length, count):
            score = starts[i] + ends[j]
            _add(candidates[number], places[i, 0], places[j, 1], score)
    pairs = zip(candidates, least.tolist(), strict=True)
    return [_rank(own, null, threshold, count) for own, null in pairs]


def _rank(
    candidates: dict, null_score: float, threshold: float, count: int
) -> list[Span]:
    """Returns the best candidates and no answer; those not finite come first."""

    def key(span: tuple[int, int]) -> tuple[bool, float]:
        return bool(np.isfinite(candidates[span])), -candidates[span]

    best = sorted(candidates, key=key)[:count]
    scores = np.array([*(candidates[span] for span in best), null_score])
    weights = np.exp(scores - scores.max())
    *shares, nothing = (weights / weights.sum()).tolist()
    answers = [(*span, share) for span, share in zip(best, shares, strict=True)]
    place = int((null_score - scores[:-1] <= threshold).sum())
    return [*answers[:place], (0, 0, nothing), *answers[place:]]


def _best_pairs(
    starts: np.ndarray,
    ends: np.ndarray,
    places: np.ndarray,
    max_answer_length: int,
    count: int,
) -> np.ndarray:
    """Returns the start and end tokens of the best spans of a window, int `[n, 2]`.

    Where scores are not finite, one such span is returned alone.
    """
    inside, tokens = places[:, 0] >= 0, np.arange(len(places))
    distance = tokens[None] - tokens[:, None]  # [T, T]
    fits = (distance >= 0) & (distance < max_answer_length)
    pairs = np.argwhere(fits & inside[:, None] & inside[None])
    sums = starts[pairs[:, 0]] + ends[pairs[:, 1]]
    damaged = ~np.isfinite(sums)
    if damaged.any():
        return pairs[damaged][:1]
    return pairs[np.argsort(-sums, kind="stable")[:count]]
