"""Metrics of predictions: labels of texts, words and spans; answers; generated texts.

All are computed on the host.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ffnlab.data import tags
from ffnlab.data.squad import Questions
from ffnlab.errors import InputError

Report = dict[str, Any]


def classification_report(
    predicted: Sequence[int], gold: Sequence[int], names: Sequence[str]
) -> Report:
    """Returns accuracy, Matthews' coefficient, F1s, and precision and recall by class.

    Args:
      predicted: The predicted labels, int `[N]`.
      gold: The true labels, int `[N]`; −1 is a label that no prediction hits.
      names: The names of the labels.

    Returns:
      `accuracy`, `matthews`, `macro`, `weighted`; under `types` by name `precision`,
      `recall`, `f1`, `support`; `confusion`, `[K, K]`, with a row for each true label.

    >>> report = classification_report([0, 1, 1], [0, 1, 0], ["ham", "spam"])
    >>> round(report["accuracy"], 3), report["types"]["spam"]["precision"]
    (0.667, 0.5)
    """
    from sklearn import metrics

    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels, known = np.arange(len(names)), gold >= 0
    columns = metrics.precision_recall_fscore_support(
        gold, predicted, labels=labels, zero_division=0.0
    )
    keys = ("precision", "recall", "f1", "support")
    types = {
        name: dict(zip(keys, map(float, row), strict=True))
        for name, row in zip(names, np.stack(columns, axis=1), strict=True)
    }
    confusion = metrics.confusion_matrix(gold[known], predicted[known], labels=labels)
    return {
        "accuracy": float((gold == predicted).mean()),
        "matthews": float(metrics.matthews_corrcoef(gold, predicted)),
        **_averages(types),
        "types": types,
        "confusion": confusion.tolist(),
    }


def _averages(types: dict[str, dict[str, float]]) -> dict[str, float]:
    """Returns the mean of F1 over types, and the mean weighted by support."""
    f1 = [scores["f1"] for scores in types.values()]
    support = [scores["support"] for scores in types.values()]
    return {
        "macro": float(np.mean(f1)) if f1 else 0.0,
        "weighted": float(np.average(f1, weights=support)) if sum(support) else 0.0,
    }


def word_report(
    predicted: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    names: Sequence[str],
) -> Report:
    """Returns the classification report of words; `O` is a label like any other.

    Args:
      predicted: The predicted tags of each sentence.
      gold: The true tags of each sentence.
      names: The names of the labels.

    >>> word_report([["O", "B-LOC"]], [["O", "O"]], ["O", "B-LOC"])["accuracy"]
    0.5
    """
    known = {name: number for number, name in enumerate(names)}
    flat = [
        [known.get(tag, -1) for row in rows for tag in row]
        for rows in (predicted, gold)
    ]
    return classification_report(*flat, names)


def span_report(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]
) -> Report:
    """Returns precision, recall and F1 of the spans of IOB2 tags, also by type.

    An I- tag without a B- tag starts a span, as in conlleval; `strict` is the F1 where
    it does not, as in seqeval's strict mode.

    Args:
      predicted: The predicted tags of each sentence.
      gold: The true tags of each sentence.

    >>> report = span_report([["O", "I-LOC"]], [["O", "B-LOC"]])
    >>> report["f1"], report["strict"]
    (1.0, 0.0)
    """
    report = tags.span_f1(predicted, gold, "iob2")
    pair = ([tags.strict(row) for row in rows] for rows in (predicted, gold))
    strict = tags.span_f1(*pair, "iob2")
    return {**report, **_averages(report["types"]), "strict": strict["f1"]}


def question_answering_report(
    predicted: Mapping[str, str], questions: Questions
) -> Report:
    """Returns the exact match of answers, and the F1 of their words.

    Case, ASCII punctuation, articles and spaces are ignored. Of several true answers
    the best match counts. Without a true answer, only the empty answer is right.

    Args:
      predicted: The predicted answer by question id.
      questions: The questions, with their true answers.

    Returns:
      `exact` and `f1` in [0, 1]; both, and `support`, under `types` for `answerable`
      and `unanswerable` questions, where there are any.

    Raises:
      InputError: A question has no prediction.

    Source: Rajpurkar et al. 2016, section 6.1, and 2018.

    >>> asked = Questions(["1"], ["Who?"], ["The old cat"], [["old cat"]], [[4]])
    >>> report = question_answering_report({"1": "The cat!"}, asked)
    >>> report["exact"], round(report["f1"], 3)
    (0.0, 0.667)
    """
    scores: dict[str, list] = {"answerable": [], "unanswerable": []}
    found = answer_scores(predicted, questions)
    for pair, gold in zip(found.tolist(), questions.answers, strict=True):
        scores["answerable" if gold else "unanswerable"].append(tuple(pair))
    types = {
        name: {**_exact_and_f1(pairs), "support": float(len(pairs))}
        for name, pairs in scores.items()
        if pairs
    }
    return {**_exact_and_f1(sum(scores.values(), [])), "types": types}


def answer_scores(predicted: Mapping[str, str], questions: Questions) -> np.ndarray:
    """Returns the exact match and the F1 of each answer, `[questions, 2]`.

    Args:
      predicted: See `question_answering_report`.
      questions: See `question_answering_report`.

    Raises:
      InputError: A question has no prediction.
    """
    scores = []
    for name, gold in zip(questions.ids, questions.answers, strict=True):
        if name not in predicted:
            raise InputError(f"question {name!r} has no prediction")
        guess = _normalize(predicted[name])
        # True answers that are empty after that count only if all of them are.
        pairs = [_match(guess, words) for words in map(_normalize, gold) if words]
        scores.append(np.max(pairs or [_match(guess, [])], axis=0))
    return np.array(scores).reshape(-1, 2)


def _normalize(text: str) -> list[str]:
    """Returns the words of an answer that are compared.

    >>> _normalize("The U.S.A. -- an  era")
    ['usa', 'era']
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _match(guess: list[str], gold: list[str]) -> tuple[float, float]:
    """Returns 1 if all words are the same or 0, and the F1 of the words."""
    shared = sum((Counter(guess) & Counter(gold)).values())
    exact, total = float(guess == gold), len(guess) + len(gold)
    return exact, 2.0 * shared / total if total else exact


def _exact_and_f1(scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    exact, f1 = np.mean(scores, axis=0).tolist()
    return {"exact": exact, "f1": f1}


def generation_report(predicted: Sequence[str], gold: Sequence[str]) -> Report:
    """Returns how similar generated texts are to their targets.

    Args:
      predicted: N texts, at least one.
      gold: N target texts.

    Returns:
      All in [0, 1]: `bleu` and `chrf` of all texts together, by `sacrebleu` (texts of
      fewer than four words have no BLEU: it is 0); `rouge1`, `rouge2` and `rougeL`,
      mean F-measures by `rouge-score` without stemming, for words of any script; and
      `exact`, the share of texts that equal their targets but for spaces at the ends.

    Raises:
      InputError: The libraries are missing.

    Source: Papineni et al. 2002, Popović 2015, Lin 2004; Post 2018 for the details.

    >>> report = generation_report(["a cat sat"], ["a dog sat"])
    >>> round(report["rouge1"], 3), report["rouge2"], report["exact"]
    (0.667, 0.0, 0.0)
    """
    try:
        import sacrebleu
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise InputError(
            "texts are scored by sacrebleu and rouge-score: "
            "pip install 'ffnlab[generate]'"
        ) from None
    # The library's own words are of a to z alone: any other script would score 0.
    split = SimpleNamespace(tokenize=lambda text: re.findall(r"[^\W_]+", text.lower()))
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, tokenizer=split)
    pairs = [*zip(predicted, gold, strict=True)]
    scores = [scorer.score(target, text) for text, target in pairs]
    exact = [text.strip() == target.strip() for text, target in pairs]
    return {
        "bleu": sacrebleu.corpus_bleu(predicted, [gold], force=True).score / 100,
        "chrf": sacrebleu.corpus_chrf(predicted, [gold]).score / 100,
        **{k: float(np.mean([score[k].fmeasure for score in scores])) for k in kinds},
        "exact": float(np.mean(exact)),
    }
