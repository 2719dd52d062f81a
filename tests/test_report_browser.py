"""Reports in headless Chromium: hostile traces are text, the explorer finds and links traces, and nothing leaves."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from browser import Page, browser
from headway.report.numbers.comparison import compare
from headway.report.numbers.table import run_table, summarize
from headway.report.page.explorer import PageRun, sort_keys
from headway.report.page.render import render_compare, render_run
from headway.report.text import visible
from headway.types import Branch, Episode, Problem, Trace

pytestmark = pytest.mark.browser

OWN = "document.title='owned'"
LONG = "x" * 5_000_000
HOSTILE = [
    f"<script>{OWN}</script>",
    f"</script><script>{OWN}</script>",
    f"<!--<script>{OWN}//-->",
    f"]]><script>{OWN}</script>",
    f'<img src=x onerror="{OWN}">',
    f"<svg onload={OWN}>",
    f"<svg><script>{OWN}</script></svg>",
    f"<body onload={OWN}><iframe srcdoc='<script>parent.{OWN}</script>'>",
    '<iframe src="https://example.com/frame"></iframe>',
    '<link rel=stylesheet href="https://example.com/x.css"><style>body{display:none}</style>',
    '<meta http-equiv="refresh" content="0;url=https://example.com/">',
    '<base href="https://example.com/"><form action="https://example.com/"><input autofocus onfocus=alert(1)>',
    f'<a href="javascript:{OWN}">x</a> [x](javascript:{OWN})',
    f'"><details open ontoggle="{OWN}">\'"`',
    "</textarea></title></style></noscript></pre></main></body></html>",
    "<template><slot></template><!DOCTYPE html><?php echo 1 ?>",
    "${document.title='owned'} `${alert(1)}`",
    "{{ 7*7 }} {% raw %} {# #} {{ data | tojson }} {% include 'x' %}",
    'datum[\'x\'] signal(data) {"expr": "1"} &lt;b&gt; &amp; &#60;script&#62;',
    "\\u003cscript\\u003e \\x3cscript\\x3e %3Cscript%3E \\",
    "\u202egnissim\u202c \u2066isolated\u2069 \u061c\u200e\u200f",
    "null\x00byte bell\x07 escape\x1b[31mred\x1b[0m back\x08\x08\x08 return\rover",
    "line\u2028paragraph\u2029 nel\x85 feed\x0c",
    "zero\u200bwidth\u200d\ufeff soft\xadhyphen \U000e0041\U000e0042 fill\u3164er select\ufe0fed",
    "lone \ud800 surrogate \udfff",
    "z\u0301\u0302\u0303\u0304" * 400,
    "مرحبا עולם 12 < 34",
    "__proto__ constructor toString hasOwnProperty",
    "#a/b/c?d=e&f=%2F%ZZ",
    LONG,
]


def shown(texts: Sequence[str], *, label: str = "run", model: str = "m", outcomes: str = "10") -> PageRun:
    """A run with a trace for each text, whose problem, thinking, answer and forced answers say it."""
    problems = [Problem(f"{i} {text[:200]}", f"{text} ?", text[:200]) for i, text in enumerate(texts)]
    traces, branches = [], []
    for i, (p, text) in enumerate(zip(problems, texts, strict=True)):
        parts = [
            f"Okay\n\n{text}\n\n",
            f"Wait\n\n{text[:500]}\n\n",
            f"</think>\\boxed{{{text[:200]}}}",
        ]  # three tokens
        offsets = tuple(itertools.accumulate(map(len, parts[:-1]), initial=0))
        reward = float(outcomes[i % len(outcomes)])
        traces.append(Trace(p.id, 0, (1,), (1, 2, 3), "".join(parts), offsets, 2, True, "stop", text[:200], reward))
        for j, b in itertools.product(range(3), range(2)):
            right = float((i + j + b) % 3 == 0)
            branches.append(Branch(p.id, 0, j, b, f"{text[:500]}}}", 9 + j, 9, text[:100], right))
    table = run_table(traces, branches, lambda trace: [Episode(0, 1), Episode(1, 2)])
    report = summarize(table, model=model, problems="p", budget=100, answer_tokens=20)
    return PageRun(label, report, table, [traces[i] for i in table.order], {p.id: p for p in problems})


def page_of(run: PageRun) -> str:
    return render_run(run)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def opened(page: Page, html: str, folder: Path, fragment: str = "") -> str:
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    page.complaints.clear()
    page.requests.clear()
    page.open(f"{file.as_uri()}{fragment}")
    page.wait("document.querySelectorAll('.chart svg').length >= 3 && document.querySelector('#trace h3')")
    return file.as_uri()


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")


def address(*parts: object) -> str:
    return "#" + "/".join(quote(str(part), safe="!'()*") for part in parts)


def choose(page: Page, control: str, value: str) -> None:
    page.run(f"(() => {{ const e = document.getElementById('{control}'); e.value = {json.dumps(value)}; "
             "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()")  # fmt: skip


def test_hostile_traces_are_shown_as_text(page: Page, tmp_path: Path) -> None:
    assert len(HOSTILE) == 30
    run = shown(HOSTILE, label=HOSTILE[1], model=HOSTILE[4])
    html = page_of(run)
    assert not re.search("[\x00\u202e\u2028\u200b\ud800]", html)
    url = opened(page, html, tmp_path)
    own = page.run("document.querySelectorAll('*').length") - page.run("document.querySelectorAll('#trace *').length")
    for k, link in enumerate(page.run("[...document.querySelectorAll('#list a')].map((a) => a.hash)")):
        i, problem = k, next(p for p in run.table.problems if p.startswith(f"{k} "))  # 2 is listed before 10
        page.run(f"location.hash = {json.dumps(link)}")
        name = visible(f"{problem}/0")
        page.wait(f"document.querySelector('#trace-name bdi').textContent === {json.dumps(name)}")
        page.run("document.querySelectorAll('#trace button').forEach((b) => b.click())")
        page.run("document.querySelectorAll('#trace details').forEach((d) => { d.open = true; })")
        page.wait("document.querySelectorAll('#trace details li code').length === 6")
        said = visible(HOSTILE[i])
        question, first, second, after = texts(page, "#trace pre")
        assert question == f"{said} ?" and after == visible(f"</think>\\boxed{{{HOSTILE[i][:200]}}}")
        assert first == f"Okay\n\n{said}" and second == f"Wait\n\n{visible(HOSTILE[i][:500])}"
        assert set(texts(page, "#trace details li code")) == {visible(HOSTILE[i][:500]) + "}"}
        tags = set(page.run("[...document.querySelectorAll('#trace *')].map((e) => e.localName)"))
        assert tags <= set(
            "a article b bdi code details div h3 h4 header li nav ol p polyline pre span summary svg".split()
        )
    assert page.run("document.querySelectorAll('*').length - document.querySelectorAll('#trace *').length") == own
    assert visible(HOSTILE[4]) == texts(page, "h1")[0]
    assert page.run("document.title") == f"{HOSTILE[4]} · Headway"
    assert page.complaints == []
    assert {r.partition("#")[0] for r in page.requests} == {url}


def test_hostile_labels_are_text_in_a_comparison(page: Page, tmp_path: Path) -> None:
    runs = [shown(HOSTILE[:29], label=HOSTILE[k], model=HOSTILE[k + 1]) for k in (0, 3, 20, 28)]
    comparison = compare([(r.label, r.table, r.report) for r in runs], [50])
    url = opened(page, render_compare(comparison, [(r.label, r.report) for r in runs], runs), tmp_path)
    assert texts(page, "#run option")[1:] == [visible(r.label) for r in runs]
    assert [t.strip() for t in texts(page, "header tbody th")] == [visible(r.label) for r in runs]
    choose(page, "run", "3")
    page.wait("document.querySelectorAll('#list a').length === 29")
    page.run("document.querySelectorAll('#list a')[2].click()")
    page.wait("document.querySelector('#trace-name bdi').textContent.startsWith('#a/b/c')")
    assert page.run("document.querySelectorAll('script').length") == 3
    assert page.run("document.querySelectorAll('img, iframe, base, link, form:not(.vega-bindings)').length") == 0
    assert page.complaints == []
    assert {r.partition("#")[0] for r in page.requests} == {url}


def test_an_address_opens_its_trace_again(page: Page, tmp_path: Path) -> None:
    run = shown(HOSTILE[:29], label="a/b ü")
    problem = next(p for p in run.problems if p.startswith("28 "))
    fragment = address(run.label, problem, 0, 1)
    opened(page, page_of(run), tmp_path, fragment)
    page.wait("document.activeElement.id === 'episode-1'")
    assert texts(page, "#trace-name bdi") == [f"{problem}/0"]
    assert texts(page, "#list a[aria-current] bdi") == [f"{problem}/0"]
    page.run("document.querySelector('.turn a').click()")
    page.wait(f"document.querySelector('#trace-name bdi').textContent !== {json.dumps(problem + '/0')}")
    link, name = page.run("location.href"), texts(page, "#trace-name bdi")
    page.open(link)
    page.wait("document.activeElement.id === 'trace-name'")
    assert texts(page, "#trace-name bdi") == name
    page.open(link.partition("#")[0] + "#a/nobody/0")
    page.wait("document.querySelector('#trace h3').textContent.includes('not among the 29 of 29')")
    assert page.complaints == []


def test_traces_are_found_sorted_and_filtered(page: Page, tmp_path: Path) -> None:
    words = [f"number{i} {'even' if i % 2 == 0 else 'odd'}" for i in range(120)]
    run = shown(words, outcomes="110")
    opened(page, page_of(run), tmp_path)
    found = "document.getElementById('found').textContent"
    page.wait(f"{found} === '120 traces'")
    assert len(texts(page, "#list li")) == 50  # the rest when asked for
    page.run("document.getElementById('more').click()")
    assert len(texts(page, "#list li")) == 100
    choose(page, "search", "Number7")
    page.wait(f"{found} === '11 of 120 traces'")  # number7, number70 to number79: in the text and in the name
    choose(page, "search", "wait")  # in every thought, in no name
    page.wait(f"{found} === '120 traces'")
    choose(page, "search", "")
    for key, column in sort_keys(run).items():
        choose(page, "sort", key)
        page.wait(f"document.querySelector('#list .quiet').textContent.startsWith('{key[:4]}')")
        best = float(np.nanmax(column))
        assert float(re.sub("[^0-9.]", "", texts(page, "#list .quiet")[0])) == pytest.approx(best, abs=0.006)
    choose(page, "outcome", "0")
    page.wait(f"{found} === '80 of 120 traces'")
    assert set(texts(page, "#list .verdict")) == {"correct"}
    choose(page, "outcome", "1")
    page.wait(f"{found} === '40 of 120 traces'")
    # what is open is among those found, and nothing is open where none is
    page.wait("document.querySelector('#trace-name .verdict').textContent === 'wrong'")
    choose(page, "search", "in no trace")
    page.wait("document.querySelector('#trace h3').textContent === 'No trace fits.'")
    assert page.complaints == []


def test_the_page_opens_on_the_most_overthought_trace_and_keys_turn_pages(page: Page, tmp_path: Path) -> None:
    run = shown([f"p{i}" for i in range(12)], outcomes="110")
    opened(page, page_of(run), tmp_path)
    page.wait("document.querySelector('#trace-name bdi')")
    assert [int(t.split()[0]) for t in texts(page, "#list bdi")] == list(range(12))
    lost = sort_keys(run)["overthinking"]
    name = texts(page, "#trace-name bdi")[0]
    assert lost[run.table.problems.index(name.rpartition("/")[0])] == np.nanmax(lost) > 0
    assert texts(page, "svg.value-line polyline") == [""]
    order = texts(page, "#list bdi")
    at = order.index(name)
    key, then = ("j", order[at + 1]) if at + 1 < len(order) else ("k", order[at - 1])
    page.run(f"dispatchEvent(new KeyboardEvent('keydown', {{ key: {json.dumps(key)} }}))")
    page.wait(f"document.querySelector('#trace-name bdi').textContent === {json.dumps(then)}")
    assert page.complaints == []


def test_a_long_label_without_a_space_does_not_widen_the_page(page: Page, tmp_path: Path) -> None:
    runs = [shown(HOSTILE[:2], label=letter * 255, model="m" * 255) for letter in "ab"]
    comparison = compare([(r.label, r.table, r.report) for r in runs], (100,))
    for html in (page_of(runs[0]), render_compare(comparison, [(r.label, r.report) for r in runs], runs)):
        opened(page, html, tmp_path)
        page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_a_page_can_be_read_without_seeing_it(page: Page, tmp_path: Path) -> None:
    run = shown(HOSTILE[:5])
    opened(page, page_of(run), tmp_path)
    assert page.run("[document.querySelectorAll('main').length, document.documentElement.lang].join()") == "1,en"
    unnamed = "[...document.querySelectorAll('{}')].filter((e) => !({})).map((e) => e.outerHTML.slice(0, 80))"
    assert page.run(unnamed.format("input, select", "e.labels.length")) == []
    labelled = "document.getElementById(e.getAttribute('aria-labelledby')) || e.ariaLabel"
    assert page.run(unnamed.format("section, nav, [role=region], aside", labelled)) == []
    assert page.run(unnamed.format("a, button", "e.textContent.trim()")) == []
    assert (
        page.run(unnamed.format(".chart svg.marks", "e.getAttribute('aria-label') || e.querySelector('[aria-label]')"))
        == []
    )
    levels = [
        int(tag[1]) for tag in page.run("[...document.querySelectorAll('h1, h2, h3, h4')].map((e) => e.localName)")
    ]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert page.run("[...document.querySelectorAll('[tabindex]')].every((e) => e.tabIndex <= 0)")
