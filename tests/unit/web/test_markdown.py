"""Markdown that models write, as HTML that a page may show."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from chat_backend.web.markdown import MOST_CHARACTERS, Patience, as_written, render

LINK = 'target="_blank" rel="noopener noreferrer nofollow"'


def html(text: str, seconds: float = 5) -> str:
    return render(text, Patience(seconds))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Big *and* **bold**", "<h1>Big <em>and</em> <strong>bold</strong></h1>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("~~gone~~ `x < y`", "<p><s>gone</s> <code>x &lt; y</code></p>"),
        ("[x](https://a.example/?q=1)", f'<p><a href="https://a.example/?q=1" {LINK}>x</a></p>'),
        ("<mailto:a@b.example>", f'<p><a href="mailto:a@b.example" {LINK}>mailto:a@b.example</a></p>'),
    ],
)
def test_markdown_is_rendered(text: str, shown: str) -> None:
    assert html(text).strip() == shown


def test_a_tables_columns_keep_their_side_without_a_style() -> None:
    shown = html("|a|b|c|\n|:-|:-:|-:|\n|1|2|3|")

    assert '<td class="left">1</td>' in shown
    assert '<td class="center">2</td>' in shown
    assert '<td class="right">3</td>' in shown


def test_code_is_coloured_by_classes_and_names_its_language() -> None:
    shown = html("```Python title\ndef f(): pass\n```")

    assert shown.startswith('<pre><code data-language="Python"><span class="k">def</span> <span class="nf">f</span>')


@pytest.mark.parametrize("language", ["", "no-such-language", "ini"])
def test_code_of_another_language_is_shown_plain(language: str) -> None:
    assert html(f"```{language}\na = <b>\n```") == (
        f'<pre><code data-language="{language}">a = &lt;b&gt;\n</code></pre>\n'
    )


@pytest.mark.parametrize("tag", ["<br>", "<br/>", "<BR />", "</br>", "<br  >", '<br class="x">', "<Br/ >"])
def test_line_break_tag_is_a_line_break(tag: str) -> None:
    assert html(f"one{tag}two") == "<p>one<br>\ntwo</p>\n"
    assert "<td>one<br>\ntwo</td>" in html(f"|a|\n|-|\n|one{tag}two|")


@pytest.mark.parametrize("tag", ["<br", "<break>", "<br onload", "<brr/>", "< br>"])
def test_what_only_resembles_a_line_break_is_text(tag: str) -> None:
    assert html(f"one{tag}two") == f"<p>one{tag.replace('<', '&lt;').replace('>', '&gt;')}two</p>\n"


def test_tags_in_code_are_text() -> None:
    assert html("`<br><sub>2</sub>`") == "<p><code>&lt;br&gt;&lt;sub&gt;2&lt;/sub&gt;</code></p>\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("H<sub>2</sub>O", "H<sub>2</sub>O"),
        ("x<SUP>**2**</SUP>", "x<sup><strong>2</strong></sup>"),
        ("**x<sup>2</sup>**", "<strong>x<sup>2</sup></strong>"),
        ("a <sub>b", "a &lt;sub&gt;b"),
        ("a <sub>b</sup>", "a &lt;sub&gt;b&lt;/sup&gt;"),
        ("a <sub onclick=x>b</sub>", "a &lt;sub onclick=x&gt;b&lt;/sub&gt;"),
        ("<sub><script>x</script></sub>", "<sub>&lt;script&gt;x&lt;/script&gt;</sub>"),
    ],
)
def test_sub_and_sup_are_the_only_other_tags(text: str, shown: str) -> None:
    assert html(text) == f"<p>{shown}</p>\n"


def test_task_list_shows_boxes() -> None:
    shown = html("- [x] done\n- [ ] **open**\n- [y] text\n")

    assert '<li class="task">\u2611 done</li>' in shown
    assert '<li class="task">\u2610 <strong>open</strong></li>' in shown
    assert "<li>[y] text</li>" in shown


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("See https://example.com/a?b=1 for more.", "https://example.com/a?b=1"),
        ("请看 https://example.com/a。谢谢", "https://example.com/a"),
        ("请看https://example.com/a，谢谢", "https://example.com/a"),
        ("（https://example.com/a）", "https://example.com/a"),
        ("「https://example.com/a」", "https://example.com/a"),
        ("(https://example.com/a)", "https://example.com/a"),
        ("[https://example.com/a]", "https://example.com/a"),
        ("{https://example.com/a}", "https://example.com/a"),
        ("https://example.com/a(see below", "https://example.com/a"),
        ("https://en.wikipedia.org/wiki/Foo_(bar).", "https://en.wikipedia.org/wiki/Foo_(bar)"),
        ("https://example.com/?a[]=1", "https://example.com/?a[]=1"),
        ("https://example.com/a?!...", "https://example.com/a"),
        ('"https://example.com/a"', "https://example.com/a"),
        ("**https://example.com/a**", "https://example.com/a"),
        ("~~https://example.com/a~~", "https://example.com/a"),
        ("_https://example.com/a_b_", "https://example.com/a_b"),
        ("|a|\n|-|\n|https://example.com/a|", "https://example.com/a"),
        ("HTTP://localhost:8000/", "HTTP://localhost:8000/"),
        ("https://ru.wikipedia.org/wiki/Чат", "https://ru.wikipedia.org/wiki/Чат"),
        ("https://example.com/a\u202eb", "https://example.com/a"),
    ],
)
def test_bare_address_is_a_link(text: str, address: str) -> None:
    shown = html(text)

    (link,) = re.findall(rf'<a href="[^"]*" {LINK}>([^<]*)</a>', shown)
    assert link == address
    (href,) = re.findall(r'href="([^"]*)"', shown)
    assert unquote(href).lower() == address.lower()


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a.example",
        "javascript://a.example",
        "xhttps://a.example",
        "https://",
        "http://...",
        "`https://a.example`",
    ],
)
def test_what_is_no_web_address_is_no_link(text: str) -> None:
    assert "<a" not in html(text)


def test_address_in_a_link_is_no_second_link() -> None:
    assert html("[at https://a.example/x](https://b.example)").count("<a ") == 1
    assert html("<https://a.example/x>").count("<a ") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**「强调」**后", "<strong>「强调」</strong>后"),
        ("这是**“强调”**的", "这是<strong>“强调”</strong>的"),
        ("これは**重要。**です", "これは<strong>重要。</strong>です"),
        ("**한국어(Korean)**은", "<strong>한국어(Korean)</strong>은"),
        ("**Note:**这是", "<strong>Note:</strong>这是"),
        ("是*「a」*b", "是<em>「a」</em>b"),
        ("~~「删」~~后", "<s>「删」</s>后"),
        ("***「三」***个", "<em><strong>「三」</strong></em>个"),
        ("三 * 四 * 五", "三 * 四 * 五"),
        ('a*"b"*c', "a*&quot;b&quot;*c"),
        ("字__中文__字", "字__中文__字"),
    ],
)
def test_emphasis_works_beside_cjk(text: str, shown: str) -> None:
    assert html(text).replace('"', "&quot;") == f"<p>{shown}</p>\n"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![picture](https://evil.example/track.png)",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "[x](/api/v1/chat/sessions)",
        "[x](//evil.example)",
        "<javascript:alert(1)>",
        '[x](https://a.example "onmouseover=alert(1)")',
        '[x](https://a.example"onclick="alert(1))',
        '``` "><img src=x onerror=alert(1)>\ncode\n```',
        "<style>*{display:none}</style>",
        '<a href="javascript:alert(1)">x</a>',
        "<svg><animate onbegin=alert(1)>",
        "&lt;img src=x onerror=alert(1)&gt;",
        "[<img src=x onerror=alert(1)>](https://a.example)",
        'https://a.example/"onmouseover=alert(1)',
        "https://a.example/<img/src=x/onerror=alert(1)>",
        '<img src="https://a.example/track.png">',
    ],
)
def test_nothing_that_runs_loads_or_leads_astray_comes_through(text: str) -> None:
    shown = html(text)

    links = re.findall(r"<a ([^>]*)>", shown)
    assert set(re.findall(r"</?(\w+)", shown)) <= {"p", "a", "pre", "code"}
    assert all(re.fullmatch(rf'href="https://[^"]*"( title="[^"]*")? {LINK}', link) for link in links)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 40_000,
        "|a|b|\n|-|-|\n" + "|a|b|\n" * 6_000,
        "*a **b " * 6_000,
        "- a\n" * 10_000,
        "|a\n|-\n" + "|\n" * 20_000,
        "http://[" * 6_000,
        "<sub>" * 8_000,
        "https://a.b " * 4_000,
    ],
)
def test_a_text_made_to_take_long_is_shown_as_it_was_written(text: str) -> None:
    assert html(text, seconds=0.02) == as_written(text)


def test_a_text_that_is_too_long_is_shown_as_it_was_written() -> None:
    text = "*<b>*" * (MOST_CHARACTERS // 5 + 1)

    assert html(text).startswith('<p class="as-written">*&lt;b&gt;**&lt;b')


HOSTILE = {
    "code": ("```html\n" + "<a " * 3_300 + "\n```\n") * 5,
    "emphasis": "~~a~~ " * 8_000,
    "links": "[a](http://x.y) " * 3_000,
    "items": "- *a*\n" * 8_000,
    "table": "|a|b|\n|-|-|\n" + "|*a*|b|\n" * 6_000,
    "brackets": "[" * 50_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_others_run_while_a_text_is_rendered(text: str) -> None:
    slices: list[float] = []

    render(text, Patience(0.25, pause=slices.append))

    # How long the longest slice was is not asserted: a garbage collection may fall into it.
    assert len(slices) > 10


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_html_is_bounded(text: str) -> None:
    assert len(render(text, Patience(10))) <= 750_000


def test_blocks_that_are_cleaned_apart_make_the_whole() -> None:
    blocks = [f"# {number}\n\n- *a*\n- b\n\n> c\n\n`d` " + "word " * 300 for number in range(20)]

    whole = render("\n\n".join(blocks), Patience(10))

    assert whole == "".join(render(block, Patience(10)) for block in blocks)
