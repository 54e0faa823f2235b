"""What each sink makes of hostile and of ordinary text."""

import json
import unicodedata
import warnings

import hypothesis
import pytest
from hypothesis import strategies as st

from ffnlab import escape
from tests.hostile import LABELS, ORDINARY, code_spans, inlines

# Text that is rich in what Markdown and terminals read as markup.
TEXTS = st.text(
    st.sampled_from("ab1 .)#-+=>|\\`*_[](){}<!&;:~$\n\t\x1b\u202e\ud800é中")
    | st.characters(),
    max_size=12,
)
# Formats that are seen: signs around Arabic and Kaithi numbers, and hieroglyphs.
SEEN = {
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,
    *range(0x13430, 0x13440),
}  # fmt: skip


def test_every_character_that_is_not_seen_is_named():
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    for number in range(0x110000):
        letter = chr(number)
        name = escape.terminal(letter)
        if unicodedata.category(letter) in hidden and number not in SEEN:
            assert name.isascii() and name.isprintable(), hex(number)
        elif letter.isalnum() and number not in (0x115F, 0x1160, 0x3164, 0xFFA0):
            assert name == letter, hex(number)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"),
        ("\x9b1m\x7f", r"\x9b1m\x7f"),
        ("b\u202ec\u2066", r"b\u202ec\u2066"),
        ("\ud800", r"\ud800"),
        ("d\r\n\te", r"d\r\n\te"),
        ("\U000e0041", r"\U000e0041"),
        ("a\u200db c\u200cd \ufeff", r"a\u200db c\u200cd \ufeff"),
        ("é\ufe0f 👩\ufe0f\ufe0f", "é\\ufe0f 👩\ufe0f\\ufe0f"),
        ("\u3164 \u115f \u034f \uffff", r"\u3164 \u115f \u034f \uffff"),
        ("C:\\new [b]", "C:\\new [b]"),
    ],
)
def test_a_terminal_shows_one_line_without_controls(text, shown):
    assert escape.terminal(text) == shown
    assert escape.terminal(shown) == shown


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text):
    assert escape.terminal(text) == escape.terminal_lines(text) == text
    assert escape.markdown(text) == text


def test_lines_and_tabs_stay_where_a_text_has_several_lines():
    text = "one\n\ttwo\r\n\x1b[2Jthree"
    assert escape.terminal_lines(text) == "one\n\ttwo\\r\n\\x1b[2Jthree"


def check_markdown(text):
    source, shown = escape.markdown(text), escape.terminal(text)
    assert "\n" not in source
    for form in ("{}", "# {}", "- {}", "Words {} words", "> {}\n> {}"):
        before, _, after = form.partition("\n")[0].lstrip("#->").strip().partition("{}")
        (found,) = inlines(form.replace("{}", source).replace("\n> ", "\n\n> "))[:1]
        assert found == f"{before}{shown}{after}", (text, source, form)
    table = f"| {source} | b |\n| :-- | --: |\n| {source} | {source} |\n"
    assert inlines(table) == [shown, "b", shown, shown], (text, source)


def check_code(text):
    assert code_spans(f"Of {escape.markdown_code(text)}.") == [escape.terminal(text)]
    block = escape.markdown_block(text)
    assert code_spans(f"{block}\n\nwords") == [escape.terminal_lines(text) + "\n"]


@pytest.mark.parametrize("text", [*LABELS, *ORDINARY, "[0.1, 0.2]", "9 [1, 2](x)"])
def test_markdown_shows_the_text(text):
    check_markdown(text)
    check_code(text)


@hypothesis.given(TEXTS.filter(bool))
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_markdown_shows_any_text(text):
    check_markdown(text)
    check_code(text)


@pytest.mark.parametrize("text", ["-0.12 [-0.2, 1e-05]", "a_b.c 3.5 %, 1.0 (2/3)"])
def test_numbers_and_names_need_no_backslash_in_markdown(text):
    assert escape.markdown(text) == text


def drawn(texts):
    """Returns a picture of texts, drawn with warnings as errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    for row, text in enumerate(texts):
        axes.text(0, row / 50, text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def test_a_picture_shows_any_text_and_warns_of_none():
    labels = [escape.picture(text) for text in [*LABELS, *ORDINARY, "\ud800"]]
    for text in drawn(labels).axes[0].texts:
        shown, math = text._preprocess_math(text.get_text())
        assert math is False and r"\$" not in shown.replace(r"\\$", "")
    assert max(len(label.replace(r"\$", "$")) for label in labels) <= 37
    assert escape.picture("$x$ \x1b é") == r"\$x\$ \x1b é"
    assert escape.picture("中") == "U+4E2D"


def test_a_font_of_another_script_is_used():
    from matplotlib import rc_context

    with rc_context({"font.family": ["no such font", "DejaVu Sans Mono"]}):
        assert escape.picture("a中é") == "a U+4E2D é"
    with rc_context({"font.family": ["no such font"]}):
        assert escape.picture("aé") == "aé"


@hypothesis.given(st.text(st.sampled_from('a"\\é\n\ud800\udfff😀')))
@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
def test_json_is_read_as_the_same_value(text):
    source = escape.json_text(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(source.encode("utf-8")) == json.loads(json.dumps({text: [text]}))
