"""Texts with two marked entities, as data of relations have them.

one, *_ = unmarked(["<e1>Ada</e1> was born in <e2>London</e2>"], ("e1", "e2"))
one     # '$ Ada $ was born in # London #'
"""

import re
from collections.abc import Sequence

SIGNS = ("$", "#")  # signs that every tokenizer has, in place of marks that none has


def unmarked(
    texts: Sequence[str], marks: tuple[str, str]
) -> tuple[list[str], list[str | None]]:
    """Returns texts with signs around the two entities, and what is wrong with each.

    Args:
      texts: each has `<MARK>` and `</MARK>` once, around words, for both marks.
      marks: of the first and of the second entity.

    Returns:
      N texts, and for each what is wrong with it, or None.

    Source: the signs of Wu & He 2019, "Enriching Pre-trained Language Model with Entity
    Information for Relation Classification".

    >>> unmarked(["<a>Ada</a> of <b>London</b>", "<a>Ada</a>"], ("a", "b"))[0][0]
    '$ Ada $ of # London #'
    >>> unmarked(["<a>Ada</a>"], ("a", "b"))[1]
    ['expected one <b>…</b> in it, found 0']
    """
    found, wrong = [], []
    for text in texts:
        problem = None
        for mark, sign in zip(marks, SIGNS, strict=True):
            name = re.escape(mark)
            pattern = rf"\s*<{name}>\s*(\S.*?)\s*</{name}>\s*"
            text, count = re.subn(pattern, rf" {sign} \1 {sign} ", text)
            loose = len(re.findall(rf"</?{name}>", text))
            if count != 1 or loose:
                problem = problem or (
                    f"expected one <{mark}>…</{mark}> in it, found {count}"
                    + (" and a mark alone" if loose else "")
                )
        found.append(text.strip())
        wrong.append(problem)
    return found, wrong
