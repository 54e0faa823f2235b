"""Pictures of text in any script: a font that has it, or code points, and no boxes."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ffnlab import fonts
from ffnlab.escape import picture
from ffnlab.report import plots

SCRIPTS = {
    "Chinese": "中文",
    "Japanese": "日本ご",
    "Arabic": "مرحبا",
    "Thai": "ไทย",
    "Hindi": "नमस्ते",
    "Hebrew": "שלום",
    "emoji": "👩‍🔬 ok",
    "Greek": "γ",
}


@pytest.fixture
def installed(monkeypatch):
    """Replaces the fonts that are installed; those of DejaVu stay."""
    manager = font_manager.fontManager
    kept = [e for e in manager.ttflist if e.name.startswith(("DejaVu", "Last"))]
    monkeypatch.setattr(manager, "ttflist", kept)
    monkeypatch.setattr(fonts, "_missing", {})
    fonts._family_of.cache_clear()
    fonts._others.cache_clear()
    yield manager
    fonts._family_of.cache_clear()
    fonts._others.cache_clear()


def add_font(manager, folder, name, text):
    """Installs a font that has a square for each character of a text."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    for step, place in enumerate([(100, 0), (100, 700), (800, 700), (800, 0)]):
        (pen.lineTo if step else pen.moveTo)(place)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"g{ord(c)}" for c in text)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"g{ord(c)}" for c in text})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path = folder / f"{name}.ttf"
    builder.save(path)
    manager.addfont(path)


def drawn(figure):
    """The pixels of a figure, drawn with warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_dejavu_alone_draws_every_script(installed):
    figure = plots.confusion(np.eye(len(SCRIPTS)), [*SCRIPTS.values()])
    drawn(figure)
    shown = {name: picture(text) for name, text in SCRIPTS.items()}
    assert shown["Greek"] == "γ" and shown["Arabic"] == SCRIPTS["Arabic"]
    assert shown["Chinese"] == "U+4E2D U+6587"
    assert shown["Thai"] == "U+0E44 U+0E17 U+0E22"
    assert shown["emoji"].startswith("U+1F469") and shown["emoji"].endswith(" ok")


def test_a_font_that_has_the_characters_is_taken(installed, tmp_path):
    add_font(installed, tmp_path, "Serif of Test", "中文ไทย")
    add_font(installed, tmp_path, "Sans of Test", "中文")
    assert picture("中文 a") == "中文 a" and picture("ไทย") == "ไทย"
    assert picture("日") == "U+65E5"
    figure = plots.scores_by_label({"中文 a": 0.5, "ไทย": 1.0, "plain": 0.7}, "文")
    drawn(figure)
    (axes,) = figure.axes
    families = {t.get_text(): t.get_fontfamily() for t in axes.get_yticklabels()}
    assert families["plain"] == ["sans-serif"]
    assert families["中文 a"] == ["sans-serif", "Sans of Test"]
    assert families["ไทย"] == ["sans-serif", "Serif of Test"]
    assert axes.xaxis.label.get_fontfamily() == ["sans-serif", "Sans of Test"]


def test_the_glyphs_of_that_font_are_drawn(installed, tmp_path):
    add_font(installed, tmp_path, "Test Sans", "中文")

    def ink(text):
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.4, text, fontsize=30)
        return (drawn(fonts.complete(figure))[..., 0] < 128).sum()

    squares = [ink("中"), ink("文")]  # both are the same square
    assert squares[0] == squares[1] > 100


def test_a_font_of_boxes_is_never_taken(installed, tmp_path):
    assert any(entry.name.startswith("Last") for entry in installed.ttflist)
    for name in ("Noto Color Emoji", "LastResort", "cmr10"):
        add_font(installed, tmp_path, name, "中")
    assert picture("中") == "U+4E2D"


def test_what_no_font_has_is_noted_once(installed, tmp_path, capsys):
    name = "中" * 2 + "".join(map(chr, range(0x4E8C, 0x4E8C + 20)))
    for _ in range(2):
        plots.save(plots.scores_by_label({name: 0.5, "γ": 1.0}), tmp_path / "a.png")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: no installed font has 中 ") and "γ" not in line
    assert " and 9 more: pictures show the code points" in line


@pytest.mark.parametrize("length", [10, 36])
def test_code_points_are_cut_off_as_a_whole(installed, length):
    shown = picture("中文" * 20, length)
    assert len(shown) <= length + 1
    assert {*shown.replace("…", " ").split()} <= {"U+4E2D", "U+6587"}
