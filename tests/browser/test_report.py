"""The report page in a real browser: it sorts, filters, prints, and holds at 375 pixels and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from rlaif.report.compare_page import write_page
from tests.report_examples import comparison, disagreement, objective, several_judges, undefined

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright.sync_api")
CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</style></script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser that was installed with the system."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with two objectives, one of them undefined, and 30 disagreements, some hostile."""
    cases = [
        disagreement(
            n,
            human="ab"[n % 2],
            preference="ba"[n % 2],
            tags={"topic": "ants" if n < 10 else "bees"},
            rationales={"ab": f"Reason {n} speaks of number{n}end.", "ba": "Another reason."},
        )
        for n in range(28)
    ]
    cases.append(disagreement(28, response_a=HOSTILE, prompt=None, rationales={"ab": HOSTILE}, tags={HOSTILE: HOSTILE}))
    cases.append(disagreement(29, id="W" * 5000, response_a="x" * 100_000, response_b="\u202eevil\x00", tags={}))
    found = objective(
        disagreements=tuple(f"pair-{n}" for n in range(100)),
        humans=objective().humans.model_copy(update={"pairwise_kappa": {HOSTILE: 0.5, "x" * 100_000: 0.25}}),
    )
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_page(
        comparison(objectives={"overall": found, "other": undefined()}, examples=tuple(cases), **several_judges()), path
    )
    return path.as_uri()


@pytest.fixture
def page(chromium: Browser, report: str) -> Iterator[Page]:
    """The page, opened; whatever it asks for or complains of fails the test."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report)
    yield opened
    assert said == []
    assert asked == [report]
    context.close()


def shown(page: Page) -> int:
    """How many disagreements are to be seen."""
    return page.locator("details.example:visible").count()


def test_tables_sort_by_keyboard_and_what_is_not_defined_stays_last(page: Page) -> None:
    table = page.get_by_role("table", name="By tag").first
    button = table.get_by_role("button", name="Accuracy")
    head = table.get_by_role("columnheader", name="Accuracy")
    assert head.get_attribute("aria-sort") == "none"
    button.focus()
    orders = []
    for _ in range(2):
        page.keyboard.press("Enter")
        values = [cell.inner_text() for cell in table.locator("tbody td:nth-child(2)").all()]
        orders.append((head.get_attribute("aria-sort"), values))
    assert orders == [("descending", ["cooking", "law", "2"]), ("ascending", ["law", "cooking", "2"])]


def test_disagreements_filter_by_direction_tag_and_text(page: Page) -> None:
    status = page.locator(".count")
    assert shown(page) == 30
    assert status.inner_text().startswith("30 disagreements shown. 70 more")
    page.get_by_role("combobox", name="Direction").select_option("people b, judge a")
    # The odd ones of 0 to 27.
    assert shown(page) == 14
    page.get_by_role("combobox", name="Tag").select_option("topic: ants")
    assert shown(page) == 5
    assert status.inner_text().startswith("5 of 30 disagreements shown.")
    page.get_by_role("searchbox", name="Text").fill("NUMBER7end  reason")
    assert shown(page) == 1
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('details.example[hidden]').length === 0")
    assert shown(page) == 30


def test_a_disagreement_opens_by_keyboard(page: Page) -> None:
    reason = page.get_by_text("Reason 0 speaks of")
    assert not reason.is_visible()
    page.locator("details.example summary").first.focus()
    page.keyboard.press("Enter")
    assert reason.is_visible()
    assert page.get_by_role("heading", name="Response a, preferred by people").first.is_visible()


def test_hostile_text_does_nothing(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.get_by_text(HOSTILE, exact=True).first.is_visible()
    assert page.get_by_text("[U+202E]evil[U+0000]").is_visible()


@pytest.mark.parametrize("width", [375, 768, 1440])
def test_the_layout_holds_at_every_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = """() => [...document.querySelectorAll('.verdict *, figure, figure svg, .facts *, .filters *, .passage')]
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5).map((each) => each.outerHTML)"""
    assert page.evaluate(beyond) == []
    smallest = """() => Math.min(...[...document.querySelectorAll('figure svg text')].map((each) =>
        parseFloat(getComputedStyle(each).fontSize) * each.ownerSVGElement.getScreenCTM().a))"""
    # As large as small print, on a phone too.
    assert page.evaluate(smallest) >= 10


def test_labels_in_pictures_do_not_run_into_each_other(page: Page) -> None:
    crossing = """() => [...document.querySelectorAll('figure svg')].flatMap((svg) => {
        const boxes = [...svg.querySelectorAll('text')].map((each) => [each.textContent, each.getBoundingClientRect()]);
        return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) =>
            Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4).map(([other]) => `${one} over ${other}`));
    })"""
    assert page.evaluate(crossing) == []


@pytest.mark.parametrize(
    ("scheme", "ink", "dot"),
    [("light", "rgb(26, 29, 33)", "rgb(0, 100, 164)"), ("dark", "rgb(233, 236, 239)", "rgb(98, 187, 245)")],
)
def test_pictures_take_the_colours_of_the_theme(
    page: Page, scheme: Literal["light", "dark"], ink: str, dot: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    fills = "() => [...new Set([...document.querySelectorAll('figure svg text')].map((t) => getComputedStyle(t).fill))]"
    assert ink in page.evaluate(fills)
    assert len(page.evaluate(fills)) == 2
    dots = "() => getComputedStyle(document.querySelector('figure svg use')).fill"
    assert page.evaluate(dots) == dot


def test_it_prints_in_light_colours_without_what_one_clicks(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 29, 33)"
    assert not page.locator("nav").is_visible()
    assert not page.locator(".filters").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF-")


def test_all_is_there_without_scripts(chromium: Browser, report: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report)
    assert shown(opened) == 30
    assert not opened.locator(".filters").is_visible()
    assert opened.locator("thead button").count() == 0
    assert opened.get_by_role("columnheader", name="Accuracy").first.is_visible()
    context.close()


def test_headings_and_controls_have_names(page: Page) -> None:
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = """() => [...document.querySelectorAll('select, input, button')].filter((each) =>
        !(each.labels && each.labels.length) && !each.textContent.trim()).length"""
    assert page.evaluate(unnamed) == 0
    pictures = page.get_by_role("img")
    assert pictures.count() == page.locator("figure svg").count() > 0
