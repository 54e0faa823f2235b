"""Labels that are markup somewhere, and what reads Markdown back."""

from markdown_it import MarkdownIt

BELL, ESCAPE, OVERRIDE, HALF = "\x07", "\x1b", "\u202e", "\ud800"
# The first characters tell labels apart where a picture or a screen shortens them.
LABELS = [
    "[/b]",
    "[red]",
    "a\x1b[31mb\x9b1m",
    "b\u202etxt\u2069",
    "c|d\\|e\\",
    "$x$",
    r"$\frac{b$",
    "`d``e",
    "e\nf\r\n\tg",
    "f" * 300,
    "# g",
    "- h",
    "12. i",
    "<!-- j <b> &amp;",
    "_k_ *l* ~~m~~",
    "![n](http://x)",
    "---",
    ":smile:",
    "\u200bo\u200d\ufeff",
    " p ",
    "_q",
    "r ##",
    "```\n# s",
]
# Ordinary text, which stays as it is.
ORDINARY = [
    "plain words 3.5 %",
    "mlp:leaky_relu",
    "Übergrößenträger",
    "e\u0301te\u0301",  # combining accents
    "中文 、ひらがな",
    "한국어",
    "שלום",
    "می\u200cخواهم",
    "क\u094d\u200dष",
    "葛\U000e0100",
    "👩\u200d🔬 🏳\ufe0f\u200d🌈 👍🏽 1\ufe0f\u20e3 ❤\ufe0f",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
]


def inlines(text):
    """Returns the content of each inline element of Markdown that is plain text.

    An element with any markup is given as None.
    """
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    plain = [all(child.type == "text" for child in t.children) for t in inline]
    return [
        "".join(child.content for child in token.children) if kept else None
        for token, kept in zip(inline, plain, strict=True)
    ]


def code_spans(text):
    """Returns the code spans and blocks of Markdown."""
    tokens = MarkdownIt("commonmark").parse(text)
    children = [child for token in tokens for child in token.children or ()]
    return [
        token.content
        for token in (*tokens, *children)
        if token.type in ("code_inline", "fence")
    ]
