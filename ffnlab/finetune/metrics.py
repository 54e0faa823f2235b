"""What is told of predictions: labels of texts, words and spans; answers; texts.

All of it is on the host.
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
      predicted: N labels.
      gold: N true ones; −1 is a label that no prediction hits.
      names: of the labels.

    Returns:
      `accuracy`, `matthews`, `macro`, `weighted`; under `types` by name `precision`,
      `recall`, `f1`, `support`; `confusion`, `[K, K]`, true labels down.

    >>> found = classification_report([0, 1, 1], [0, 1, 0], ["ham", "spam"])
    >>> round(found["accuracy"], 3), found["types"]["spam"]["precision"]
    (0.667, 0.5)
    """
    from sklearn import metrics

    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels = np.arange(len(names))
    parts = metrics.precision_recall_fscore_support(
        gold, predicted, labels=labels, zero_division=0.0
    )
    kinds = ("precision", "recall", "f1", "support")
    types = {
        name: dict(zip(kinds, (float(part[k]) for part in parts), strict=True))
        for k, name in enumerate(names)
    }
    there = gold >= 0
    return {
        "accuracy": float((gold == predicted).mean()),
        "matthews": float(metrics.matthews_corrcoef(gold, predicted)),
        **_averages(types),
        "types": types,
        "confusion": metrics.confusion_matrix(
            gold[there], predicted[there], labels=labels
        ).tolist(),
    }


def _averages(types: dict[str, dict[str, float]]) -> dict[str, float]:
    """Returns the mean F1 over types, and that weighted by how many there are."""
    f1 = [each["f1"] for each in types.values()]
    support = [each["support"] for each in types.values()]
    return {
        "macro": float(np.mean(f1)) if f1 else 0.0,
        "weighted": float(np.average(f1, weights=support)) if sum(support) else 0.0,
    }


def word_report(
    predicted: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    names: Sequence[str],
) -> Report:
    """Returns the report of single words, `O` being a label like any other.

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
    """Returns what `tags.span_f1` says of IOB2 tags, with the means over types.

    An I- without its beginning begins an entity, as conlleval has it; under `strict`,
    the F1 when it does not, as in seqeval's strict mode.

    >>> found = span_report([["O", "I-LOC"]], [["O", "B-LOC"]])
    >>> found["f1"], found["strict"]
    (1.0, 0.0)
    """
    found = tags.span_f1(predicted, gold, "iob2")
    strict = tags.span_f1(
        [tags.strict(row) for row in predicted], [tags.strict(row) for row in gold],
        "iob2",
    )  # fmt: skip
    return {**found, **_averages(found["types"]), "strict": strict["f1"]}


def question_answering_report(
    predicted: Mapping[str, str], questions: Questions
) -> Report:
    """Returns how many answers are right to the letter, and the F1 of their words.

    Case, punctuation of ASCII, articles and space do not count; of several right
    answers the best counts. Where there is none, only the empty answer is right.

    Args:
      predicted: a text for each id.
      questions: with their right answers.

    Returns:
      `exact` and `f1` in [0, 1]; both, and `support`, under `types` for `answerable`
      and `unanswerable` questions, where there are any.

    Raises:
      InputError: a question has no prediction.

    Source: Rajpurkar et al. 2016, section 6.1, and 2018.

    >>> asked = Questions(["1"], ["Who?"], ["The old cat"], [["old cat"]], [[4]])
    >>> found = question_answering_report({"1": "The cat!"}, asked)
    >>> found["exact"], round(found["f1"], 3)
    (0.0, 0.667)
    """
    scores: dict[str, list] = {"answerable": [], "unanswerable": []}
    for name, gold in zip(questions.ids, questions.answers, strict=True):
        if name not in predicted:
            raise InputError(f"question {name!r} has no prediction")
        guess = _compared(predicted[name])
        # An answer of which nothing is left says nothing, unless all are such.
        pairs = [_agreement(guess, words) for words in map(_compared, gold) if words]
        best = np.max(pairs or [_agreement(guess, [])], axis=0)
        scores["answerable" if gold else "unanswerable"].append(tuple(best))
    types = {
        name: {**_exact_and_f1(each), "support": float(len(each))}
        for name, each in scores.items()
        if each
    }
    return {**_exact_and_f1(sum(scores.values(), [])), "types": types}


def _compared(text: str) -> list[str]:
    """Returns the words of an answer that are compared.

    >>> _compared("The U.S.A. -- an  era")
    ['usa', 'era']
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _agreement(guess: list[str], gold: list[str]) -> tuple[float, float]:
    """Returns whether words are the same, and the F1 of those that are."""
    shared = sum((Counter(guess) & Counter(gold)).values())
    exact, total = float(guess == gold), len(guess) + len(gold)
    return exact, 2.0 * shared / total if total else exact


def _exact_and_f1(scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    exact, f1 = np.mean(scores, axis=0).tolist()
    return {"exact": exact, "f1": f1}


def generation_report(predicted: Sequence[str], gold: Sequence[str]) -> Report:
    """Returns how like written texts are to those that they should be.

    Args:
      predicted: N texts, at least one.
      gold: N true ones.

    Returns:
      All in [0, 1]: `bleu` and `chrf` of all texts together, as `sacrebleu` has them
      (without four words in a row there is no BLEU: it is 0); `rouge1`, `rouge2` and
      `rougeL`, mean F-measures as `rouge-score` has them without stemming, but with
      words of any script; `exact`, the share that is the same but for spaces around it.

    Raises:
      InputError: the libraries are missing.

    Source: Papineni et al. 2002, Popović 2015, Lin 2004; Post 2018 for the details.

    >>> found = generation_report(["a cat sat"], ["a dog sat"])
    >>> round(found["rouge1"], 3), found["rouge2"], found["exact"]
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
    scores = [scorer.score(true, found) for found, true in pairs]
    return {
        "bleu": sacrebleu.corpus_bleu(predicted, [gold], force=True).score / 100,
        "chrf": sacrebleu.corpus_chrf(predicted, [gold]).score / 100,
        **{k: float(np.mean([score[k].fmeasure for score in scores])) for k in kinds},
        "exact": float(
            np.mean([found.strip() == true.strip() for found, true in pairs])
        ),
    }
