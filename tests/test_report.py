"""The report page of `rlaif compare --html`: what it says, that it needs nothing else, and that text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlaif.agreement.results import Comparison
from rlaif.errors import RunError
from rlaif.report.compare_examples import disagreements
from rlaif.report.compare_page import compare_page, write_page
from rlaif.report.figures import Axis, Point, Row, dot_plot, fitted
from rlaif.report.page import Page, Section, Verdict, readable, render_page
from rlaif.report.wording import number, share
from rlaif.types import Message
from tests.conftest import ROOT, Cli, environment, write_lines
from tests.report_examples import comparison, disagreement, objective, several_judges, undefined

HOSTILE = "</style></script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
OVERRIDE = "safe \u202egnihton\u202c and \x00 and \ud800"


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        """How many there are of a tag."""
        return sum(name == tag for name, _ in self.tags)

    def values(self, attribute: str) -> list[str]:
        """All values of an attribute."""
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


def html_of(found: Comparison) -> str:
    """The page of a comparison."""
    return render_page(compare_page(found))


def within(html: str, pattern: str) -> list[str]:
    """The texts that a pattern's group finds in a page, unescaped."""
    return [unescape(each) for each in re.findall(pattern, html, re.DOTALL)]


def judged(passed: bool | None) -> Comparison:
    """A comparison by whether the alternative annotator test passes."""
    found = objective()
    changed: dict[str, Any] = {"passed": passed}
    if passed is None:
        changed |= {"winning_rate": None, "per_annotator": {}}
    test = found.alt_test.model_copy(update=changed)
    return comparison(objectives={"overall": objective(alt_test=test, not_defined={"alt_test": "two annotators"})})


@pytest.fixture(scope="module")
def page() -> str:
    """The page of an ordinary comparison with several judges."""
    return html_of(comparison(**several_judges()))


@pytest.mark.parametrize(
    ("passed", "tone", "start"),
    [
        (True, "good", "judge-7b may stand in for people: "),
        (False, "bad", "judge-7b should not stand in for people: "),
        (None, "open", "Whether judge-7b may stand in for people cannot be told: "),
    ],
)
def test_the_verdict_is_one_sentence_and_comes_first(passed: bool | None, tone: str, start: str) -> None:
    html = html_of(judged(passed))
    [sentence] = within(html, r'<p class="sentence">(.*?)</p>')
    assert sentence == (
        f"{start}it agrees with most people on 75.0% of 200 pairs (69.0% to 81.0%), where a person agrees with most of "
        "the others on 90.5%."
    )
    assert f'<div class="verdict {tone}">' in html
    assert html.index("sentence") < html.index("<svg") < html.index("<table") < html.index('<details class="example"')
    if passed is None:
        assert "could not be done: two annotators." in html


def test_several_objectives_are_told_apart_in_the_verdict() -> None:
    failed = objective(alt_test=objective().alt_test.model_copy(update={"passed": False}))
    html = html_of(comparison(objectives={"kind": objective(), "honest": failed, "brief": undefined()}))
    assert within(html, r'<p class="sentence">(.*?)</p>') == [
        "judge-7b may stand in for people under kind; not under honest; for brief it cannot be told."
    ]
    assert within(html, r'<a href="(#[a-z]+[-0-9]*)">') == [
        "#glance",
        *(f"#objective-{n}" for n in range(3)),
        "#disagreements",
        "#reading",
    ]


def test_an_empty_comparison_still_has_a_page() -> None:
    html = html_of(comparison(objectives={}, examples=()))
    assert "There is nothing to compare judge-7b with." in html
    assert "There is no pair on which they differ." in html


def test_the_page_needs_nothing_else_and_runs_only_its_own_script(page: str) -> None:
    seen = Seen(page)
    [policy] = within(page, r'Content-Security-Policy" content="(.*?)"')
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert all(target.startswith("#") for target in seen.values("href"))
    assert {"src", "srcset", "style", "action", "xlink:href"} & {key for _, each in seen.tags for key in each} == set()
    assert [key for _, each in seen.tags for key in each if key.startswith("on")] == []
    assert re.findall(r"url\((?!#)", page) == []


def test_pictures_have_words_for_who_cannot_see_them_and_ids_are_unique(page: str) -> None:
    seen = Seen(page)
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    pointed = [each for value in seen.values("aria-labelledby") for each in value.split()]
    pointed += [target.removeprefix("#") for target in seen.values("href")]
    pointed += re.findall(r"url\(#(.*?)\)", page)
    assert set(pointed) <= set(ids)
    # Ten of the objective and one of the ranking.
    assert seen.count("svg") == seen.count("figcaption") == seen.count("desc") == 11
    [said] = within(page, r'<desc id="o0-agreement-description">(.*?)</desc>')
    assert said.startswith(
        "agrees with the majority. Judge, all pairs (n = 200): judge 75.0% (69.0% to 81.0%). "
        "Against the others, mean: judge 75.2%, people 90.5%. ann (n = 200): judge 75.5% (69.1% to 80.9%), people 91.0%"
    )
    assert re.search(r"font-family|<metadata|#0a0b0", page.partition("<svg")[2]) is None


def test_tables_hold_every_figure_with_its_interval_and_what_it_sorts_by(page: str) -> None:
    rows = within(page, r"<tr>\n(.*?)</tr>")
    [accuracy] = [row for row in rows if "against the people's majority; a tie is one of three answers" in row]
    assert 'data-sort="0.75"' in accuracy
    assert "75.0%" in accuracy
    assert "69.0% to 81.0%" in accuracy
    [turns] = [row for row in rows if ">turns" in row.replace("\n", "")]
    assert 'data-sort=""' in turns
    assert "—" in turns
    assert "The cheapest judge that is not significantly worse than the best: judge-7b." in page
    assert "McNemar, mid-p" in page


def test_what_is_not_defined_is_a_dash_with_the_reason() -> None:
    html = html_of(comparison(objectives={"overall": undefined()}, examples=()))
    text = Seen(html.partition("<main")[2].partition("<script")[0]).text
    assert re.search(r"\b(nan|None|inf)\b", text) is None
    assert Seen(html).count("svg") == 0
    for reason in (
        "the judge gave no preference",
        "one annotator has nobody to agree with",
        "it takes three annotators",
        "no pair was judged in both orders",
        "the responses are not known; give --pairs FILE",
    ):
        assert f"Not defined: {reason}" in text or f"—{reason}" in re.sub(r"\s*\n\s*", "", text)


def test_a_column_of_which_nothing_is_known_is_told_below_the_table() -> None:
    given = several_judges()
    [ranking] = given["ranking"]
    free = tuple(each.model_copy(update={"cost": None}) for each in ranking.standings)
    html = html_of(comparison(ranking=(ranking.model_copy(update={"standings": free}),)))
    assert "Tokens a pair: not defined, no run at hand tells it." in html
    assert within(html, r"<th [^>]*>(Tokens a pair)</th>") == []
    assert within(html_of(comparison(**given)), r"<th [^>]*>(Tokens a pair)</th>") == ["Tokens a pair"]


def test_figures_below_nought_have_a_real_minus_and_nought_has_none() -> None:
    assert [share(-0.01), share(-0.00001), share(0.7107), share(None)] == ["−1.0%", "0.0%", "71.1%", "—"]
    assert [number(-0.5), number(-0.0001), number(2, 0)] == ["−0.500", "0.000", "2"]


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    text = HOSTILE + OVERRIDE
    found = objective(
        warnings=(text,),
        not_defined={"position": text},
        humans=objective().humans.model_copy(update={"pairwise_kappa": {text: 0.5}}),
        by_tag=tuple(each.model_copy(update={"tag": text, "value": text}) for each in objective().by_tag),
    )
    case = disagreement(
        1,
        id=text,
        judge=text,
        objective=text,
        prompt=(Message(role="user", content=text),),
        response_a=text,
        response_b=text,
        votes={text: "a", "bo": "a"},
        rationales={text: text},
        tags={text: text},
    )
    other = case.model_copy(update={"id": "other", "preference": "tie"})
    write_page(
        comparison(judge=text, labels=text, human=text, objectives={text: found}, examples=(case, other)),
        tmp_path / "page.html",
    )
    html = (tmp_path / "page.html").read_bytes().decode("utf-8")
    seen = Seen(html)
    assert (seen.count("script"), seen.count("style"), seen.count("img")) == (1, 1, 0)
    assert HOSTILE + "safe [U+202E]gnihton[U+202C] and [U+0000] and [U+D800]" in seen.text
    assert re.search("[\x00\u202e\u202c\ud800]", html) is None


def test_the_same_comparison_gives_the_same_bytes(page: str, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from tests.report_examples import comparison, several_judges\n"
        "from rlaif.report.compare_page import write_page\n"
        "write_page(comparison(**several_judges()), pathlib.Path(sys.argv[1]))\n"
    )
    path = tmp_path / "again.html"
    known = {**environment(), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, path], env=known, cwd=ROOT, check=True, timeout=300)
    assert path.read_text(encoding="utf-8") == page


def test_two_hundred_long_disagreements_fit_in_three_megabytes() -> None:
    # Each "<" takes four bytes, and each of the others three.
    long = "<日" * 15_000
    cases = tuple(
        disagreement(n, prompt=(Message(role="user", content=long),), response_a=long, response_b=long)
        for n in range(250)
    )
    found = comparison(
        objectives={"overall": objective(disagreements=tuple(case.id for case in cases))}, examples=cases
    )
    shown = disagreements(found)
    assert len(shown.examples) == 200
    assert shown.more == "50 more are not on this page; rlaif compare --json names them all."
    html = html_of(found)
    assert 1_000_000 < len(html.encode()) < 3_000_000
    [response] = [each for each in shown.examples[0].passages if each.label == "Response a, preferred by people"]
    assert len(response.text) - 1 + response.left_out == 30_000
    assert f"{response.left_out:,} more characters are left out." in html


def test_no_objective_fills_the_page_alone() -> None:
    cases = [disagreement(n, objective="kind") for n in range(5)] + [disagreement(9, objective="honest")]
    shown = disagreements(comparison(examples=tuple(cases)), most=3)
    assert [case.id for case in shown.examples] == ["pair-0", "pair-9", "pair-1"]
    # All three are of one direction, which would be no choice; the tags of two or more pairs are.
    assert [(each.label, each.options) for each in shown.filters] == [
        ("Objective", ("honest", "kind")),
        ("Tag", ("topic: animals", "turns: 1")),
    ]
    assert [case.picks[0] for case in shown.examples] == [(1,), (0,), (1,)]


def test_a_disagreement_shows_both_responses_and_both_orders_reasons() -> None:
    [case] = disagreements(comparison(examples=(disagreement(2),))).examples
    assert case.summary == "overall: people a (a 2, tie 1), judge b (p_a 0.23)"
    assert [(each.label, each.text, each.marked) for each in case.passages[:5]] == [
        ("Prompt", "How many legs have 2 spiders?", False),
        ("Response a, preferred by people", "16 legs.", True),
        ("Response b, preferred by judge", "I would rather talk about ants, which have six.", False),
        ("Judge's reasons, a shown first", "Response B is the friendlier one.", False),
        ("Judge's reasons, b shown first", "Response A changes the subject politely.", False),
    ]


def test_calibration_shows_the_bins_before_and_after() -> None:
    known = objective().calibration
    one = known.bins[0].model_copy(update={"n": 8, "p_a": 0.9, "human": 0.75, "ci": (0.41, 0.93)})
    # Odds of 9 at temperature 2 are odds of 3.
    found = objective(calibration=known.model_copy(update={"bins": (one,), "temperature": 2.0}))
    html = html_of(comparison(objectives={"overall": found}))
    assert within(html, r'<desc id="o0-calibration-description">(.*?)</desc>') == [
        "people prefer a by judge's p_a. p 0.90, 0.75 when calibrated: 75.0% of 8 (41.0% to 93.0%)."
    ]


def test_a_picture_places_points_by_their_value() -> None:
    rows = [
        Row(label="first", points=(Point(value=0.25, text="25%"),)),
        Row(label="second", points=(Point(value=0.75, text="75%", ci=(0.5, 1.0)),)),
    ]
    svg = dot_plot("x", "title", rows, ("judge",), Axis(label="share", limits=(0.0, 1.0)))
    # Of 340 the axis takes 8 to 278: a quarter is at 75.5, three quarters at 210.5, and the bar goes from 143 to 278.
    dots = re.findall(r'<use [^>]*fill="var\(--first\)"[^>]*>', svg)
    assert [re.findall(r' x="([\d.]+)"', dot) for dot in dots] == [["75.5"], ["210.5"]]
    [bar] = re.findall(r'd="M ([^"]*)"[^>]*stroke="var\(--first\)" stroke-width="2.5"', svg)
    assert re.sub(r" [\d.]+ L", " L", bar).split()[:3] == ["143", "L", "278"]
    assert ">25%<" in svg


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("short", 10, "short"),
        ("exactly-ten", 11, "exactly-ten"),
        ("a little too long", 10, "a little…"),
        ("two\nlines", 20, "two lines"),
        ("日本語日本語", 7, "日本語…"),
        ("x" * 100_000, 8, "x" * 7 + "…"),
        ("a\u202eb", 20, "a[U+202E]b"),
    ],
)
def test_labels_fit_on_one_line(text: str, most: int, shown: str) -> None:
    assert fitted(text, most) == shown


def test_characters_that_cannot_be_seen_are_named_and_others_left() -> None:
    assert readable("a\x00b\u200bc") == "a[U+0000]b[U+200B]c"
    assert readable("שלום \U0001f469\u200d\U0001f4bb\tx\r\ny") == "שלום \U0001f469\u200d\U0001f4bb\tx\r\ny"


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` by WCAG."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast of two colours by WCAG, 1 to 21."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_level_aa(theme: int) -> None:
    css = (ROOT / "rlaif" / "report" / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", blocks[theme]))
    for paper in ("page", "paper"):
        for text in ("ink", "soft", "good", "bad", "open", "link"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
        for mark in ("first", "second", "third", "edge"):
            assert contrast(colours[mark], colours[paper]) >= 3, (mark, paper)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_page(comparison(), tmp_path / "missing" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_other_reports_can_use_the_page() -> None:
    verdict = Verdict(tone="open", label="Untold", sentence="Heads & tails.")
    html = render_page(Page(title="T", verdict=verdict, sections=(Section(name="one", title="One", blocks=()),)))
    assert "Heads &amp; tails." in html
    assert "<nav" not in html


def test_compare_writes_the_page(rlaif: Cli, tmp_path: Path) -> None:
    people, judge, pairs = [], [], []
    for n in range(40):
        side = "ab"[n % 2]
        pairs.append(
            {"id": f"p{n}", "prompt": f"Ask {n}", "response_a": "<b>A</b>" * (n % 3 + 1), "response_b": "B" * n}
        )
        people += [{"id": f"p{n}", "annotator": who, "objective": "overall", "preference": side} for who in "xyz"]
        said = "a" if n < 10 else side
        judge.append(
            {"id": f"p{n}", "judge": "j", "objective": "overall", "preference": said, "rationale": "<i>so</i>"}
        )
    files = [
        write_lines(tmp_path / name, rows)
        for name, rows in zip(("j.jsonl", "h.jsonl", "p.jsonl"), (judge, people, pairs), strict=True)
    ]
    page = tmp_path / "page.html"
    done = rlaif("compare", files[0], files[1], "--pairs", files[2], "--resamples", 20, "--html", page, timeout=500)
    assert done.returncode == 0, done.stderr
    html = page.read_text(encoding="utf-8")
    # Of the first ten pairs people prefer b in five.
    assert "it agrees with most people on 87.5% of 40 pairs" in html
    assert html.count('<details class="example"') == 5
    assert "&lt;i&gt;so&lt;/i&gt;" in html
