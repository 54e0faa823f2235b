"""The inputs of a pipeline: texts, words, pairs and records, as examples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ffnlab.data.entity_markers import replace_markers
from ffnlab.data.examples import Example
from ffnlab.data.files import is_text
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.finetune.usage import Usage


def read_inputs(texts: Any, usage: Usage) -> tuple[list[Example], bool]:
    """Returns examples, and whether they are of one input and not of a list.

    Args:
      texts: See `predictor.Pipeline`.
      usage: How the model is used.

    Raises:
      InputError: An input is missing, blank or of another kind; its number is named.

    >>> read_inputs({"text": "hello"}, Usage("classify", 64))[0][0].text
    'hello'
    """
    if hasattr(texts, "columns"):  # a data frame
        texts = _records(texts, usage)
    elif hasattr(texts, "tolist"):  # an array, or a column of a data frame
        texts = texts.tolist()
    single = isinstance(texts, str | Mapping) or (
        usage.two_texts
        and isinstance(texts, tuple)
        and any(isinstance(each, str) for each in texts)
    )
    if single:
        texts = [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | set | frozenset):
        raise InputError(f"texts: expected a text or a list of texts, got {_a(texts)}")
    return [_example(text, n, usage) for n, text in enumerate(texts, 1)], single


def keys_of(usage: Usage) -> list[str]:
    """Returns the keys of a record: the columns of training that have a name.

    >>> keys_of(Usage("qa", 64)), keys_of(Usage("pairs", 64, text_column="1"))
    (['question', 'context'], ['text', 'text2'])
    """
    if usage.task == "qa":
        return ["question", "context"]
    text, pair = usage.text_column, usage.pair_column
    keys = ["text" if text.isdecimal() else text]
    return keys + ["text2" if pair.isdecimal() else pair] * usage.two_texts


def _records(frame: Any, usage: Usage) -> list[dict[str, Any]]:
    """Returns the rows of a data frame, with the columns that are needed."""
    keys, columns = keys_of(usage), list(frame.columns)
    missing = [key for key in keys if key not in columns]
    if missing:
        raise InputError(f"texts: no column {missing[0]!r}; there is {_join(columns)}")
    rows = zip(*(list(frame[key]) for key in keys), strict=True)
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _example(text: Any, number: int, usage: Usage) -> Example:
    """Returns an input as an example; `number` counts the inputs from 1."""
    where = f"texts: text {number}"
    if isinstance(text, Mapping):
        text = _of_record(text, where, usage)
    if usage.task == "tag":
        if is_text(text):
            return Example(text)
        words = text.tolist() if hasattr(text, "tolist") else text
        if _texts(words) and len(words):
            return Example(list(words))
        raise InputError(
            f"{where} should be a text or a list of words, none blank, not {_a(text)}"
        )
    if not usage.two_texts:
        if is_text(text):
            return _marked(Example(text), usage.marks, where)
        raise InputError(f"{where} should be a text that is not blank, not {_a(text)}")
    if _texts(text) and len(text) == 2:
        return Example(*text)
    pair = "question and context" if usage.task == "qa" else "two texts"
    raise InputError(f"{where} should be a pair of {pair}, none blank, not {_a(text)}")


def _of_record(record: Mapping[str, Any], where: str, usage: Usage) -> Any:
    """Returns the text of a record, or its two texts."""
    keys = keys_of(usage)
    for key in keys:
        if key not in record:
            raise InputError(f"{where} has no {key!r}; there is {_join(record)}")
    values = [record[key] for key in keys]
    return values if usage.two_texts else values[0]


def _texts(value: Any) -> bool:
    """Returns whether a value is a list or tuple of texts, none of them blank."""
    return isinstance(value, list | tuple) and all(map(is_text, value))


def _marked(example: Example, marks: Sequence[str], where: str) -> Example:
    """Returns an example after a check of its entity markers, if there are any."""
    if marks:
        (problem,) = replace_markers([example.text], marks)[1]
        if problem:
            raise InputError(f"{where}: {problem}")
    return example


def _a(value: Any) -> str:
    """Returns what a value is, for an error.

    >>> _a(3), _a("b"), _a(" "), _a(None)
    ('an int, 3', "a str, 'b'", 'a blank one', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, str) and not value.strip():
        return "a blank one"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}, {value!r:.60}"


def _join(names: Iterable[Any]) -> str:
    return ", ".join(terminal(str(name)) for name in names) or "nothing"
