"""Markdown that models write, as HTML that a page may show."""

from __future__ import annotations

import re

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
    ],
)
def test_a_text_made_to_take_long_is_shown_as_it_was_written(text: str) -> None:
    assert html(text, seconds=0.02) == as_written(text)


def test_a_text_that_is_too_long_is_shown_as_it_was_written() -> None:
    text = "*<b>*" * (MOST_CHARACTERS // 5 + 1)

    assert html(text).startswith('<p class="as-written">*&lt;b&gt;**&lt;b')
