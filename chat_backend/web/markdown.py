"""Markdown as HTML that a page may show: what a model wrote is hostile, and may be shaped to cost time.

Raw HTML is shown as text, except line breaks, `<sub>` and `<sup>`. Images are links, and links lead to http, https and
mailto only. Two fences, each enough by itself: markdown-it makes no other HTML, and nh3 lets no other pass.

Beyond CommonMark and tables: bare http and https addresses are links, list items may be tasks, and emphasis works
beside Chinese, Japanese and Korean text.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.renderer import RendererHTML, RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
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
    *("s", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_CLASSES = {name for name in STANDARD_TYPES.values() if name}
# Models write these tags where Markdown has no other way. A space or a slash ends the name, as in HTML.
_BREAK = re.compile(r"</?br(?:[\s/][^<>]{0,100})?>", re.IGNORECASE)
_RAISED = re.compile(r"<(su[bp])>(.{1,200}?)</\1>", re.IGNORECASE)
_TASK = re.compile(r"\[([ xX])\](?=\s)")
_BOX = {" ": "\u2610", "x": "\u2611"}
_SCHEME = re.compile(r"(?<![A-Za-z0-9])https?\Z", re.IGNORECASE)
# What is longer is no address: each of its signs is looked at without a look at the clock.
_LONGEST_ADDRESS = 2_000
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
# They end a sentence or mark up a text more often than they end an address.
_TRAILING = "?!.,:;*_~'"
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
        allowed_classes={"span": _CLASSES, "li": {"task"}, "th": set(_ALIGNED.values()), "td": set(_ALIGNED.values())},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


class _InlineState(StateInline):
    """Text that is parsed, with emphasis beside Chinese, Japanese and Korean."""

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        """Say whether markers open or close emphasis.

        CommonMark wants a space between a punctuation mark inside and a letter outside. These languages have none
        there, so a mark of theirs counts as a letter, and a letter of theirs as a space. `_` keeps its rules.
        """
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before = self.src[start - 1] if start else " "
        after = self.src[end] if end < self.posMax else " "
        if not canSplitWord or not (_is_cjk(before) or _is_cjk(after)):
            return scanned
        return Scanned(not after.isspace(), not before.isspace(), scanned.length)


class _InlineParser(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _InlineState(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _markdown() -> MarkdownIt:
    parser = MarkdownIt(renderer_cls=_Renderer)
    parser.inline = _InlineParser()
    parser.configure("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: url.lower().startswith(_LINKED)  # type: ignore[method-assign]
    # The first rules of all are asked at every block, within most at every line, and at every sign: there we look at
    # the clock.
    within = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("table", "patience", _patience_of_blocks, {"alt": within})
    parser.inline.ruler.before("text", "patience", _patience_of_signs)
    for step in ("balance_pairs", "strikethrough", "emphasis", "fragments_join"):
        parser.inline.ruler2.before(step, f"patience before {step}", _patience_of_line)
    parser.inline.ruler.at("linkify", _bare_link)
    parser.inline.ruler.enable("linkify")
    parser.inline.ruler.after("autolink", "harmless tags", _harmless_tag)
    parser.core.ruler.push("tasks", _tasks)
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


def _bare_link(state: StateInline, silent: bool) -> bool:
    """Make a link of an http or https address as it is written in a text; called at its colon."""
    if state.linkLevel or not state.src.startswith("://", state.pos):
        return False
    scheme = _SCHEME.search(state.src[max(state.pos - 6, 0) : state.pos])
    # Silent, the parser only measures how far it goes, and has gathered no text.
    if scheme is None or not (silent or state.pending.endswith(scheme.group())):
        return False
    limit = min(state.pos + _LONGEST_ADDRESS, state.posMax)
    end = _end_of_address(state.src, state.pos + 3, limit)
    if end == limit < state.posMax:
        return False
    address = scheme.group() + state.src[state.pos : end]
    href = state.md.normalizeLink(address)
    if not any(map(str.isalnum, address[len(scheme.group()) :])) or not state.md.validateLink(href):
        return False
    if not silent:
        state.pending = state.pending[: -len(scheme.group())]
        state.push("link_open", "a", 1).attrs = {"href": href}
        state.push("text", "", 0).content = address
        state.push("link_close", "a", -1)
    state.pos = end
    return True


def _end_of_address(text: str, start: int, limit: int) -> int:
    """Return where an address ends: before a closing bracket, and before all but letters outside ASCII."""
    end, open_brackets = start, list[tuple[str, int]]()
    while end < limit:
        sign = text[end]
        if not _is_of_address(sign) or text.startswith(("**", "~~"), end):
            break
        if sign in _BRACKETS:
            open_brackets.append((_BRACKETS[sign], end))
        elif sign in _BRACKETS.values() and (not open_brackets or open_brackets.pop()[0] != sign):
            break
        end += 1
    # What an address opens it closes.
    end = open_brackets[0][1] if open_brackets else end
    while end > start and text[end - 1] in _TRAILING:
        end -= 1
    return end


def _is_of_address(sign: str) -> bool:
    if sign.isascii():
        return sign > " " and sign not in '<>"`\\^|\x7f'
    return unicodedata.category(sign)[0] in "LMN"


def _harmless_tag(state: StateInline, silent: bool) -> bool:
    """Make a line break of `<br>` in any spelling, and `<sub>` and `<sup>` of what they enclose."""
    if state.src[state.pos] != "<":
        return False
    if found := _BREAK.match(state.src, state.pos, state.posMax):
        if not silent:
            state.push("hardbreak", "br", 0)
        state.pos = found.end()
        return True
    found = _RAISED.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        limit, tag = state.posMax, found.group(1).lower()
        state.push(f"{tag}_open", tag, 1)
        state.pos, state.posMax = found.span(2)
        state.md.inline.tokenize(state)
        state.posMax = limit
        state.push(f"{tag}_close", tag, -1)
    state.pos = found.end()
    return True


def _is_cjk(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in ("W", "F", "H") and unicodedata.category(sign) not in ("So", "Sk")


def _tasks(state: StateCore) -> None:
    """Show `[ ]` and `[x]` at the beginning of a list item as a box."""
    for item, paragraph, content in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if (item.type, paragraph.type, content.type) != ("list_item_open", "paragraph_open", "inline"):
            continue
        state.env["patience"].check()
        first = content.children[0] if content.children else None
        if first and first.type == "text" and (found := _TASK.match(first.content)):
            first.content = _BOX[found.group(1).lower()] + first.content[found.end() :]
            item.attrSet("class", "task")


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
