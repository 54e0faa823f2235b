"""Fonts of pictures: which installed font has a character, and those that a text needs.

Matplotlib draws a box for a character that is in none of the fonts of a text. Here the
fonts that are installed are searched for it, beside those of `font.family`.
"""

import array
import bisect
import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fonts that have boxes or colours in place of outlines, or letters at wrong places.
_UNFIT = re.compile(r"^\.?last ?resort|colou?r|^cm[a-z]+10$|^stix(non|size)", re.I)
_SHOWN = 12  # characters that a note names
_missing: dict[str, bool] = {}  # characters without a font, and whether a note had them


def is_drawable(character: str) -> bool:
    """Returns whether an installed font has a character; one that none has is noted."""
    if _family_of(character, *_key()) is not None:
        return True
    _missing.setdefault(character, False)
    return False


def complete(figure: "Figure") -> "Figure":
    """Returns a figure whose texts have the fonts that they need.

    Args:
      figure: The figure; fonts are added behind those of its texts.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if families := families_of(text.get_text()):
            own = text.get_fontfamily()
            text.set_fontfamily([*own, *(f for f in families if f not in own)])
    return figure


def families_of(text: str) -> list[str]:
    """Returns the families that a text needs beside the default ones.

    >>> families_of("plain")
    []
    """
    key = _key()
    found = (_family_of(c, *key) for c in text if not c.isascii())
    return list(dict.fromkeys(filter(None, found)))


def note() -> str:
    """Returns a sentence on the characters without a font, each of them once.

    It is empty if there are none that no note has named.
    """
    new = [character for character, named in _missing.items() if not named]
    _missing.update(dict.fromkeys(new, True))
    if not new:
        return ""
    more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
    return (
        f"no installed font has {' '.join(new[:_SHOWN])}{more}: pictures show the code "
        "points; the fonts of Noto have the letters of all scripts"
    )


def _key() -> tuple[tuple[str, ...], int]:
    """Returns the default families, and the number of fonts, which may grow."""
    from matplotlib import font_manager, rcParams

    families = [*rcParams["font.family"]]
    if "sans-serif" in families:
        families += rcParams["font.sans-serif"]
    return tuple(families), len(font_manager.fontManager.ttflist)


@functools.lru_cache(maxsize=2**16)
def _family_of(character: str, defaults: tuple[str, ...], number: int) -> str | None:
    """Returns the family to add for a character; empty if a default font has it.

    None stands for no font. `number` keeps apart what was found among fewer fonts.
    """
    code = ord(character)
    if any(_has(path, code) for path in _default_paths(defaults, number)):
        return ""
    return next(
        (family for family, path in _others(number).items() if _has(path, code)), None
    )


_Path = tuple[str, int]  # a file, and the number of the face in it


@functools.lru_cache(maxsize=8)
def _default_paths(families: tuple[str, ...], _: int) -> list[_Path]:
    """Returns the fonts that matplotlib takes for some families."""
    from matplotlib import font_manager

    paths = []
    for family in families:
        wanted = font_manager.FontProperties(family=[family])
        try:
            paths.append(font_manager.findfont(wanted, fallback_to_default=False))
        except ValueError:  # not installed
            continue
    paths = paths or [font_manager.findfont(font_manager.FontProperties())]
    return [(str(path), getattr(path, "face_index", 0)) for path in paths]


@functools.lru_cache(maxsize=2)
def _others(_: int) -> dict[str, _Path]:
    """Returns a font of each family, the most readable families first."""
    from matplotlib import font_manager

    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if not _UNFIT.search(entry.name)
    ]
    best: dict[str, Any] = {}
    for entry in sorted(entries, key=_distance):
        best.setdefault(entry.name, entry)
    names = sorted(best, key=lambda name: (*_preference(name), name))
    return {name: (best[name].fname, getattr(best[name], "index", 0)) for name in names}


def _distance(entry: Any) -> tuple[bool, int]:
    """Returns how far a font is from an upright one of regular weight."""
    weight = entry.weight if isinstance(entry.weight, int) else 400
    return entry.style != "normal", abs(weight - 400)


def _preference(name: str) -> tuple[bool, bool]:
    """Returns whether a family is not sans serif, and whether it is not of Noto."""
    return "sans" not in name.lower(), not name.startswith("Noto")


def _has(path: _Path, code: int) -> bool:
    """Returns whether a font has a character."""
    codes = _codes(path)
    place = bisect.bisect_left(codes, code)
    return place < len(codes) and codes[place] == code


@functools.cache
def _codes(path: _Path) -> array.array:
    """Returns the characters of a font, ascending; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    name, face = path
    try:
        font = FT2Font(name, face_index=face) if face else FT2Font(name)
        return array.array("I", sorted(font.get_charmap()))
    except (OSError, RuntimeError, TypeError):
        return array.array("I")
