r"""Text from data, for where it is shown: a terminal, Markdown, a picture, JSON.

A label, a column, a path or a generated text may hold anything. Each function here
returns what shows the text as it is, and nothing else: no markup, no control of the
terminal, no invisible characters. Letters of all scripts, accents and emoji stay as
they are; a character that would not be seen is shown as in Python, such as `\x1b`.
"""

import itertools
import re

from ffnlab import fonts

# Characters that are not seen, or act on what is around them: controls, separators of
# lines, halves of surrogate pairs, noncharacters, interlinear annotations, and those
# with the property Default_Ignorable_Code_Point (Unicode 15, DerivedCoreProperties),
# among them the controls of writing direction.
_HIDDEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    + "".join(
        chr(plane << 16 | end) for plane in range(1, 17) for end in (65534, 65535)
    )
)
_EMOJI = "\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ARABIC = "\u0600-\u06ff\u0710-\u074f\u0750-\u077f\u0860-\u08ff"
_VIRAMAS = (
    "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d3b\u0d3c\u0d4d\u0dca\u1039"
    "\u17d2"
)
_SELECTABLE = (
    f"{_EMOJI}{_IDEOGRAPHS}\xa9\xae\u1000-\u109f\u203c\u2049\u2122\u2139\u3000-\u30ff"
    "\u3297\u3299\ua860-\ua87f\uff00-\uff60"
)
# Hidden characters that ordinary text needs: a joiner within an emoji, beside a virama
# or between Arabic letters (RFC 5892, A.1 and A.2), one selector of how the character
# before it looks, and the letters of a regional flag.
_NEEDED = "|".join(
    [
        f"(?<=[{_EMOJI}\ufe0f])\u200d(?=[{_EMOJI}])",
        f"(?<=[{_VIRAMAS}])[\u200c\u200d]|[\u200c\u200d](?=[{_VIRAMAS}])",
        f"(?<=[{_ARABIC}])\u200c(?=[{_ARABIC}])",
        f"(?<=[{_SELECTABLE}])[\ufe00-\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)",
        f"(?<=[{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]",
        "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f",
    ]
)
_FIND_HIDDEN = re.compile(f"({_NEEDED})|[{_HIDDEN}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

# What Markdown would read as markup; an interval such as [0.1, 0.2] after a number, and
# an underscore within a word, are none.
_INTERVAL = r"(?<=\S )\[[-+\d][-+\d.,e ]*\](?![(\[:])"
_MARKUP = re.compile(
    rf"({_INTERVAL})"
    r"|[\\`*<|~$\[\]]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|#(?=#*\s*$)"
    r"|^(?:[#>]|[-+=](?=[-+=\s]*$|\s))"
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_OUTER_SPACE = re.compile(r"^\s|\s$")


def terminal(text: str) -> str:
    r"""Returns a text in one line, as a terminal can show it.

    What is escaped already stays as it is, so that a message may be made of escaped
    parts and be escaped as a whole.

    Args:
      text: Any text, without markup of rich.

    >>> print(terminal("été 中文 👩‍🔬"), terminal("a\x1b[31m\u202eb\n"))
    été 中文 👩‍🔬 a\x1b[31m\u202eb\n
    """
    return _FIND_HIDDEN.sub(lambda found: found[1] or _code(found[0]), text)


def terminal_lines(text: str) -> str:
    r"""Returns a text of several lines, as a terminal can show it.

    Args:
      text: Any text; line feeds and tabs stay.

    >>> print(terminal_lines("one\ntwo\x07"))
    one
    two\x07
    """
    return "".join(
        piece if piece in "\n\t" else terminal(piece)
        for piece in re.split(r"([\n\t])", text)
    )


def markdown(text: str) -> str:
    r"""Returns Markdown that shows a text, in a line or in a cell of a table.

    Source: CommonMark 0.31, section 2.4, and GitHub Flavored Markdown 0.29, 4.10.

    Args:
      text: Any text.

    >>> print(markdown("a_b|c $x$"), markdown("# [b]"), markdown("0.97 [0.9, 1.0]"))
    a_b\|c \$x\$ \# \[b\] 0.97 [0.9, 1.0]
    """
    shown = _MARKUP.sub(lambda found: found[1] or "\\" + found[0], terminal(text))
    shown = _NUMBERED.sub(r"\1\\\2", shown)
    return _OUTER_SPACE.sub(lambda found: f"&#{ord(found[0])};", shown)


def markdown_code(text: str) -> str:
    """Returns a text as a code span of Markdown, outside of tables.

    Args:
      text: Any text that is not empty.

    >>> markdown_code("a|b"), markdown_code("a`b"), markdown_code("`")
    ('`a|b`', '``a`b``', '`` ` ``')
    """
    shown = terminal(text)
    fence = "`" * (1 + _longest_run(shown))
    stripped = shown[:1] == shown[-1:] == " " and shown.strip()
    pad = " " if stripped or "`" in (shown[:1], shown[-1:]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def markdown_block(text: str) -> str:
    r"""Returns a text of several lines as a code block of Markdown.

    Args:
      text: Any text; line feeds and tabs stay.

    >>> print(markdown_block("one\n```"))
    ````
    one
    ```
    ````
    """
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}\n{terminal_lines(text)}\n{fence}"


def picture(text: str, length: int = 36) -> str:
    r"""Returns a text for a picture of matplotlib, in one line.

    A dollar starts no formula. A character that no installed font has is shown by its
    code point; see `ffnlab.fonts`.

    Args:
      text: Any text.
      length: The most characters, besides those that escape dollars. Of a longer text
        the beginning and the end are shown.

    >>> print(picture("$x$\n"), picture("a_block_with_a_very_long_name", 11))
    \$x\$\n a_blo…_name
    >>> picture("no\U000f0000font")
    'no U+F0000 font'
    """
    pieces: list[str] = []
    for letter in terminal(text):
        drawn = letter.isascii() or fonts.is_drawable(letter)
        shown = letter if drawn else f"U+{ord(letter):04X}"
        apart = pieces and (len(shown) > 1 or len(pieces[-1]) > 1)
        if apart and not letter.isspace() and not pieces[-1].isspace():
            pieces.append(" ")
        pieces.append(shown)
    if sum(map(len, pieces)) > length:
        half = length // 2
        pieces = [*_first(pieces, half), "…", *_first(pieces[::-1], half)[::-1]]
    return "".join(pieces).replace("$", r"\$")


def _first(pieces: list[str], length: int) -> list[str]:
    """Returns the first pieces that are together no longer than a length."""
    ends = itertools.accumulate(map(len, pieces))
    return pieces[: sum(end <= length for end in ends)]


def json_text(text: str) -> str:
    r"""Returns a JSON text that can be written in UTF-8, and is read as the same value.

    Args:
      text: From `json.dumps` with `ensure_ascii=False`, which leaves halves of
        surrogate pairs as they are.

    >>> print(json_text('"é\ud800"'))
    "é\ud800"
    """
    return _SURROGATE.sub(lambda found: _code(found[0]), text)


def _code(letter: str) -> str:
    """Returns a character as in the source of a program."""
    if letter in _NAMES:
        return _NAMES[letter]
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _longest_run(text: str) -> int:
    """Returns the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
