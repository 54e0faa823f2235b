"""What the files of a tagger's words were like: their format, columns and scheme."""

from typing import Any

from ffnlab.data.examples import Examples
from ffnlab.data.tagged_lines import TaggedLines


def columns_of(examples: Examples, label_column: str) -> dict[str, Any]:
    """Returns the fields of `Usage` on the format of files of tagged words.

    Args:
      examples: Examples of a file of training, with rows.
      label_column: The column of the tags, as it was given.
    """
    source = examples.rows[0]
    if not isinstance(source, TaggedLines):
        return {"file_format": examples.layout.kind}
    column = label_column if label_column.isdecimal() else None
    if source.layout.format == "conllu" and source.place:
        column = source.layout.name(source.place)
    return {"file_format": source.layout.format, "label_column": column}


def scheme_to_write(examples: Examples, trained: str | None) -> str | None:
    """Returns the scheme that the predictions of a part are written in.

    A small part may have no B- tags although the scheme has them: spans that touch must
    then be told apart. Nor need it have M- and W- tags.

    Args:
      examples: The part.
      trained: The scheme of the training part.

    >>> scheme_to_write(Examples([], [], [], [], scheme="bioes"), "bmes")
    'bmes'
    """
    scheme = examples.scheme
    if scheme == "io" and trained != "io":
        return "iob1"
    if trained in ("bmes", "bmewo"):
        plain = all(tag == "O" for row in examples.labels for tag in row)
        return trained if plain or scheme in ("bioes", "bmes") else scheme
    return scheme
