"""Markdown as HTML that a page may show: what a model wrote is hostile, and may be shaped to cost time.

Raw HTML is shown as text, images are links, and links lead to http, https and mailto only. Two fences, each enough by
itself: markdown-it makes no other HTML, and nh3 lets no other pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML, RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

# What is longer is shown as it was written: a thread is held for as long as it takes.
MOST_CHARACTERS = 50_000
MOST_HIGHLIGHTED = 10_000
# Of HTML, which may be many times longer than its text; nothing else runs while a block of it is cleaned.
MOST_HTML = 500_000
MOST_HTML_OF_BLOCK = 250_000
CLEANED_AT_ONCE = 20_000
SLICE_SECONDS = 0.001
_LINKED = ("http://", "https://", "mailto:")
_TAGS = {
    *("a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre"),
    *("s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_CLASSES = {name for name in STANDARD_TYPES.values() if name}
_ALIGNED = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
# Each was tried with 47 hostile texts, and took little time for any one word. (ini took seconds.)
_LANGUAGES = {
    *("bash", "c", "c++", "cpp", "c#", "csharp", "cs", "css", "diff", "docker", "dockerfile", "go", "html", "java"),
    *("javascript", "js", "json", "kotlin", "lua", "make", "makefile", "nginx", "perl", "php", "powershell", "py"),
    *("python", "python3", "rb", "rs", "ruby", "rust", "scala", "sh", "shell", "sql", "swift", "toml", "ts", "tsx"),
    *("jsx", "typescript", "xml", "yaml", "yml"),
}


class Patience:
    """How much processor time may be spent, over one text or several. Others run after each slice of it.

    With greenlets nothing else runs while a text is rendered, and threads take turns only every few milliseconds.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.thread_time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._seconds = seconds
        self._spent = 0.0
        self._slice_began = clock()

    @property
    def spent(self) -> float:
        """Seconds of processor time that were used so far."""
        return self._spent + self._clock() - self._slice_began

    def check(self) -> None:
        """Let others run if it is time to. Raises TookTooLong if the time has run out."""
        spent = self._clock() - self._slice_began
        if spent < SLICE_SECONDS:
            return
        self._spent += spent
        # As long as it took: another request needs many short turns, and would wait for a slice at each.
        self._pause(spent)
        self._slice_began = self._clock()
        if self._spent >= self._seconds:
            raise TookTooLong


class TookTooLong(Exception):
    """A text takes more time to render than there is."""


def render(text: str, patience: Patience) -> str:
    """Return a text as safe HTML; one that is too long, or takes too long, as it was written."""
    if len(text) > MOST_CHARACTERS:
        return as_written(text)
    try:
        return "".join(_blocks(text, patience))
    except (TookTooLong, RecursionError):
        return as_written(text)


def _blocks(text: str, patience: Patience) -> Iterator[str]:
    """Yield the HTML of the outermost blocks, made one by one and cleaned a few at a time."""
    env = {"patience": patience}
    tokens = _MARKDOWN.parse(text, env)
    begins = size = 0
    html = ""
    for number, token in enumerate(tokens, 1):
        if token.level or token.nesting > 0:
            continue  # the block goes on
        html += _MARKDOWN.renderer.render(tokens[begins:number], _MARKDOWN.options, env)
        begins = number
        if len(html) > MOST_HTML_OF_BLOCK or size + len(html) > MOST_HTML:
            raise TookTooLong
        if len(html) > CLEANED_AT_ONCE or number == len(tokens):
            yield _clean(html)
            size, html = size + len(html), ""
        patience.check()


def as_written(text: str) -> str:
    """Return a text as HTML that shows just what was written."""
    return f'<p class="as-written">{escape(text)}</p>'


def _clean(html: str) -> str:
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "code": {"data-language"}, "ol": {"start"}},
        allowed_classes={"span": _CLASSES, "th": set(_ALIGNED.values()), "td": set(_ALIGNED.values())},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: url.lower().startswith(_LINKED)  # type: ignore[method-assign]
    # The first rules of all are asked at every block, within most at every line, and at every sign: there we look at
    # the clock.
    within = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("table", "patience", _patience_of_blocks, {"alt": within})
    parser.inline.ruler.before("text", "patience", _patience_of_signs)
    for step in ("balance_pairs", "strikethrough", "emphasis", "fragments_join"):
        parser.inline.ruler2.before(step, f"patience before {step}", _patience_of_line)
    for name, rule in {"fence": _code, "code_block": _code, "th_open": _cell, "td_open": _cell}.items():
        parser.add_render_rule(name, rule)
    return parser


class _Renderer(RendererHTML):
    """Looks at the clock at every tag and every piece of code; text has a tag beside it."""

    def renderToken(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        env["patience"].check()
        return super().renderToken(tokens, idx, options, env)

    def code_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        env["patience"].check()
        return super().code_inline(tokens, idx, options, env)


def _patience_of_blocks(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    state.env["patience"].check()
    return False


def _patience_of_signs(state: StateInline, silent: bool) -> bool:
    state.env["patience"].check()
    return False


def _patience_of_line(state: StateInline) -> None:
    state.env["patience"].check()


def _cell(renderer: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    # A style attribute would be against the page's policy.
    aligned = _ALIGNED.get(str(tokens[index].attrs.get("style")))
    return f'<{tokens[index].tag} class="{aligned}">' if aligned else f"<{tokens[index].tag}>"


def _code(renderer: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    language = tokens[index].info.strip().split(maxsplit=1)[0] if tokens[index].info.strip() else ""
    code = "".join(_highlighted(tokens[index].content, language.lower(), env["patience"]))
    return f'<pre><code data-language="{escape(language[:30])}">{code}</code></pre>\n'


def _highlighted(code: str, language: str, patience: Patience) -> Iterator[str]:
    if language not in _LANGUAGES or len(code) > MOST_HIGHLIGHTED:
        yield escape(code)
        return
    for kind, text in get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(code):
        patience.check()
        name = STANDARD_TYPES.get(kind, "")
        yield f'<span class="{name}">{escape(text)}</span>' if name and name != "w" else escape(text)


_MARKDOWN: Any = _markdown()
