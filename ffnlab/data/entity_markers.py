"""Texts in which two entities are marked: `<e1>Ada</e1> sings in <e2>London</e2>`."""

import re
from collections.abc import Sequence
from pathlib import Path

from ffnlab.data.files import stop_at

SIGNS = ("$", "#")  # every tokenizer has these signs, and none the markers


def replace_markers(
    texts: Sequence[str], marks: Sequence[str]
) -> tuple[list[str], list[str | None]]:
    """Returns texts with signs around the two entities, and the problem of each text.

    Args:
      texts: Each has `<MARK>` and `</MARK>` once, around words, for both marks.
      marks: The names of the markers of the first and of the second entity.

    Returns:
      N texts, and for each what is wrong with it, or None.

    Source: the signs of Wu & He 2019, "Enriching Pre-trained Language Model with Entity
    Information for Relation Classification".

    >>> replace_markers(["<a>Ada</a> of <b>London</b>", "<a>Ada</a>"], ("a", "b"))[0][0]
    '$ Ada $ of # London #'
    >>> replace_markers(["<a>Ada</a>"], ("a", "b"))[1]
    ['expected one <b>…</b> in it, found 0']
    """
    replaced, problems = [], []
    for text in texts:
        problem = None
        for mark, sign in zip(marks, SIGNS, strict=True):
            name = re.escape(mark)
            pattern = rf"\s*<{name}>\s*(\S.*?)\s*</{name}>\s*"
            text, count = re.subn(pattern, rf" {sign} \1 {sign} ", text)
            alone = len(re.findall(rf"</?{name}>", text))
            if count != 1 or alone:
                problem = problem or (
                    f"expected one <{mark}>…</{mark}> in it, found {count}"
                    + (" and a marker alone" if alone else "")
                )
        replaced.append(text.strip())
        problems.append(problem)
    return replaced, problems


def check_markers(
    path: str | Path, texts: Sequence[str], lines: Sequence[int], marks: Sequence[str]
) -> None:
    """Checks that the two entities are marked in every text of a file.

    Args:
      path: The file, for errors.
      texts: N texts.
      lines: Their line numbers, from 1.
      marks: The names of the two markers.

    Raises:
      InputError: Up to 20 texts that have not both markers once.
    """
    problems = zip(lines, replace_markers(texts, marks)[1], strict=True)
    stop_at(path, [(line, problem) for line, problem in problems if problem])
