"""The labelling page in a real browser: pairs by keyboard, undo, reload, a killed server, two people, attacks."""

from __future__ import annotations

import http.server
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect

from rlaif.data.human import read_human_labels
from tests.browser.conftest import PATIENCE
from tests.conftest import made_pairs, read_lines, write_lines
from tests.reviewing import Client, Review

expect.set_options(timeout=PATIENCE)

ATTACKS = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "[click me](javascript:window.hacked=1)",
    "<svg onload='window.hacked = 1'><script>window.hacked = 1</script></svg>",
    "<a href='javascript:window.hacked=1'>here</a>",
    "<iframe srcdoc='<script>parent.hacked = 1</script>'></iframe>",
    "![picture](http://127.0.0.1:1/secret.png)",
    '"><body onload=window.hacked=1>',
    "[x](data:text/html,<script>window.hacked=1</script>)",
    "<style>body { display: none }</style>",
)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Where the labels go."""
    return tmp_path / "human.jsonl"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty small pairs."""
    return write_lines(tmp_path / "pairs.jsonl", made_pairs(20))


@pytest.fixture
def review(pairs: Path, labels: Path) -> Iterator[Review]:
    """The page for twenty pairs."""
    with Review(pairs, labels, "--port", 0) as running:
        yield running


def begin(page: Page, review: Review, name: str) -> None:
    """Open the page with the address that was printed last, and give a name."""
    page.goto(review.unused_url())
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("#who")).to_have_text(name)


def expect_count(page: Page, text: str) -> None:
    """Wait until the page says how many are done: the answer is on the disk then."""
    expect(page.locator("#count")).to_have_text(text)


def press(page: Page, key: str, count: str) -> None:
    """Press a key and wait until the answer is saved and the next question is there."""
    page.keyboard.press(key)
    expect_count(page, count)
    expect(page.locator("body")).not_to_have_class("busy")


def answered(page: Page) -> Any:
    """How many answers of ada's the server has."""
    return page.evaluate("fetch('/api/question?annotator=ada').then((r) => r.json()).then((state) => state.answered)")


def left_side(page: Page, pair: dict[str, Any]) -> str:
    """Which response of a pair stands on the left."""
    expect(page.locator("#turns")).to_contain_text(pair["prompt"])
    return "a" if page.locator("#left").inner_text() == pair["response_a"] else "b"


def test_twenty_pairs_by_keyboard_with_undo_and_reload(page: Page, review: Review, pairs: Path, labels: Path) -> None:
    rows = read_lines(pairs)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    begin(page, review, "ada")
    # The token is gone from the address.
    assert page.url == f"http://127.0.0.1:{review.port}/"
    keys = ["a", "b", "t", "ArrowLeft", "ArrowRight"] * 4
    expected = {}
    for number, (row, key) in enumerate(zip(rows, keys, strict=True)):
        first = left_side(page, row)
        other = "b" if first == "a" else "a"
        assert page.locator("#right").inner_text() == row[f"response_{other}"]
        if number == 3:
            # A wrong key, taken back: the earlier answer is marked, and what counts is the later one.
            press(page, "t", "4 of 20")
            press(page, "u", "3 of 20")
            assert left_side(page, row) == first
            expect(page.locator("[data-choice=tie]")).to_have_class(re.compile("before"))
        if number == 7:
            page.keyboard.press("n")
            page.keyboard.type("a, b and t are no answers here")
            page.keyboard.press("Escape")
        if number == 11:
            page.reload()
            expect_count(page, "11 of 20")
            assert left_side(page, row) == first
        press(page, key, f"{number + 1} of 20")
        expected[row["id"]] = {"a": first, "ArrowLeft": first, "t": "tie"}.get(key, other)
    expect(page.get_by_role("heading", name="All done")).to_be_visible()
    review.end()
    majority = read_human_labels(str(labels)).majority
    assert majority == {(name, "overall"): preference for name, preference in expected.items()}
    assert {row["id"]: row.get("note") for row in read_lines(labels) if "note" in row} == {
        "pair-7": "a, b and t are no answers here"
    }
    assert all(row["seconds"] >= 0 for row in read_lines(labels))
    # All that was asked for came from this server.
    assert all(url.startswith(f"http://127.0.0.1:{review.port}/") for url in asked)


def test_a_killed_server_costs_nothing_and_the_page_goes_on(
    page: Page, pairs: Path, labels: Path, tmp_path: Path
) -> None:
    running = Review(pairs, labels)
    begin(page, running, "ada")
    for number in range(1, 6):
        press(page, "a", f"{number} of 20")
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    with closing(sqlite3.connect(f"{labels}.db")) as db:
        assert db.execute("SELECT count(*) FROM events WHERE answer IN ('a', 'b')").fetchone() == (5,)
    page.keyboard.press("t")
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("Not saved yet: your answer “tie”. It is kept in this browser")
    # The page does not go on to a pair without having saved this one.
    expect(page.locator("#number")).to_have_text("pair 6 of 20")
    page.keyboard.press("b")
    with Review(pairs, labels) as again:
        assert again.port == running.port
        expect(banner).to_be_hidden()
        expect_count(page, "6 of 20")
        expect(page.locator("#number")).to_have_text("pair 7 of 20")
        press(page, "b", "7 of 20")
    assert [row["preference"] == "tie" for row in read_lines(labels)] == [False] * 5 + [True, False]


def test_a_killed_browser_and_server_lose_nothing(
    page: Page, context: BrowserContext, pairs: Path, labels: Path
) -> None:
    running = Review(pairs, labels)
    begin(page, running, "ada")
    press(page, "a", "1 of 20")
    running.kill()
    page.keyboard.press("t")
    expect(page.get_by_role("alert")).to_be_visible()
    page.close(run_before_unload=False)
    with Review(pairs, labels) as again:
        later = context.new_page()
        later.goto(again.url())
        later.get_by_label("Name").fill("ada")
        later.get_by_role("button", name="Begin").click()
        # The answer that was under way when both ended was sent when the page came back.
        expect_count(later, "2 of 20")
    assert [row["preference"] for row in read_lines(labels)][1] == "tie"


def test_offline_keeps_the_answer_and_says_so(page: Page, context: BrowserContext, review: Review) -> None:
    begin(page, review, "ada")
    context.set_offline(True)
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_contain_text("Not saved yet: your answer “A is better”")
    expect(page.locator("#number")).to_have_text("pair 1 of 20")
    context.set_offline(False)
    expect_count(page, "1 of 20")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_second_annotator_has_their_own_progress(
    page: Page, browser_context_of_bo: BrowserContext, review: Review, labels: Path
) -> None:
    begin(page, review, "ada")
    press(page, "a", "1 of 20")
    press(page, "a", "2 of 20")
    other = browser_context_of_bo.new_page()
    begin(other, review, "bo")
    expect_count(other, "0 of 20")
    press(other, "t", "1 of 20")
    press(page, "b", "3 of 20")
    # The same browser can change hands, and come back.
    page.get_by_role("button", name="Change annotator").click()
    page.get_by_label("Name").fill("bo")
    page.keyboard.press("Enter")
    expect_count(page, "1 of 20")
    review.end()
    rows = read_lines(labels)
    assert [row["annotator"] for row in rows].count("ada") == 3
    assert read_human_labels(str(labels)).annotators == 2


@pytest.fixture
def browser_context_of_bo(browser: Any) -> Iterator[BrowserContext]:
    """Another person's browser."""
    made = browser.new_context()
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


def test_attacks_in_prompts_and_responses_stay_text(page: Page, tmp_path: Path, labels: Path) -> None:
    rows = [
        {"id": f"attack-{n}", "prompt": attack, "response_a": f"A {attack}", "response_b": f"B\n\n{attack}"}
        for n, attack in enumerate(ATTACKS)
    ]
    faults: list[str] = []
    foreign: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(f"http://127.0.0.1:{running.port}/"):
            foreign.append(request.url)

    with Review(write_lines(tmp_path / "attacks.jsonl", rows), labels, "--port", 0) as running:
        page.on("request", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        begin(page, running, "<b>ada</b>")
        for number, attack in enumerate(ATTACKS):
            # What a reader needs to see of it is there as words.
            telling = re.split(r"[^\w.:/=]+", attack.replace("'", " "))
            expect(page.locator("#number")).to_have_text(f"pair {number + 1} of {len(ATTACKS)}")
            for place in ("#turns", "#left", "#right"):
                words = page.locator(place).inner_text()
                assert all(word in words for word in telling), (attack, words)
                assert page.locator(f"{place} :is(script, img, svg, iframe, style, body, object, embed)").count() == 0
                for link in page.locator(f"{place} a").all():
                    assert re.match("https?://", link.get_attribute("href") or "https://")
                for name in ("onerror", "onload", "onclick", "style", "src"):
                    assert page.locator(f"{place} [{name}]").count() == 0
            press(page, "r", page.locator("#count").inner_text())
            assert attack in page.locator("#left").inner_text()
            press(page, "r", page.locator("#count").inner_text())
            assert page.evaluate("window.hacked") is None
            press(page, "t", f"{number + 1} of {len(ATTACKS)}")
    assert faults == []
    assert foreign == []
    assert {row["annotator"] for row in read_lines(labels)} == {"<b>ada</b>"}


BREAK_INS = """async () => {
    const tries = {
        markup: () => { document.createElement("div").innerHTML = "<b>x</b>"; },
        handler: () => document.createElement("img").setAttribute("onerror", "window.hacked = 1"),
        script: () => { document.createElement("script").text = "window.hacked = 1"; },
        policy: () => window.trustedTypes.createPolicy("rlaif", { createHTML: (html) => html }),
    };
    const outcome = {};
    for (const [name, attempt] of Object.entries(tries)) {
        try { attempt(); outcome[name] = "done"; } catch (error) { outcome[name] = "refused"; }
    }
    const picture = document.createElement("img");
    const blocked = new Promise((resolve) => document.addEventListener("securitypolicyviolation", (event) => {
        if (event.blockedURI === picture.src) resolve(event.effectiveDirective);
    }));
    picture.src = "http://127.0.0.1:1/told.png";
    document.body.append(picture);
    return { ...outcome, network: await blocked };
}"""


def test_the_page_itself_could_not_run_foreign_code(page: Page, review: Review) -> None:
    """The second wall: what would happen if unsafe markup got past the first one."""
    begin(page, review, "ada")
    found = page.evaluate(BREAK_INS)
    assert found.pop("network") == "img-src"
    assert found == dict.fromkeys(("markup", "handler", "script", "policy"), "refused")
    assert page.evaluate("window.hacked") is None


class Stranger(http.server.BaseHTTPRequestHandler):
    """An empty page of somebody else's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>stranger</title>")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """Address of another program on this machine: to a browser it is the same site, so that cookies go along."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


STRANGER_TRIES = """async (base) => {
    const send = (path, more) => fetch(base + path, { credentials: "include", ...more });
    const body = JSON.stringify({ annotator: "ada", last: 1 });
    const tries = [
        send("/api/session"),
        send("/api/session", { mode: "no-cors" }),
        send("/api/undo", { method: "POST", mode: "no-cors", body }),
        send("/api/undo", { method: "POST", headers: { "content-type": "application/json" }, body }),
    ];
    const frame = document.createElement("iframe");
    frame.src = base + "/";
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
    document.body.append(frame);
    await loaded;
    let inside = "closed";
    try { inside = frame.contentDocument ? "blank" : "closed"; } catch { inside = "closed"; }
    const results = await Promise.allSettled(tries);
    return [...results.map((each) => each.status === "fulfilled" ? each.value.type : "failed"), inside];
}"""


def test_another_page_in_the_same_browser_gets_nothing(
    page: Page, context: BrowserContext, review: Review, stranger: str
) -> None:
    begin(page, review, "ada")
    press(page, "a", "1 of 20")
    sent: list[str] = []
    other = context.new_page()
    other.on("request", lambda request: sent.append(request.method))
    other.goto(stranger)
    outcome = other.evaluate(STRANGER_TRIES, f"http://127.0.0.1:{review.port}")
    # It may read nothing, and what a page may send without asking first (it was sent) is not taken.
    assert set(outcome) <= {"failed", "opaque", "closed"}
    assert "POST" in sent
    assert answered(page) == 1
    assert Client(review.port).send("GET", "/api/session").status == 401
    assert Client(review.port).enter(review.url(0)).status == 401


def test_it_works_at_375_pixels(browser: Any, review: Review) -> None:
    phone = browser.new_context(viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    phone.set_default_timeout(PATIENCE)
    page = phone.new_page()
    begin(page, review, "ada")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    # One response below the other, and the answers in reach all the time.
    left, right = (page.locator(place).bounding_box() for place in ("#left", "#right"))
    assert left is not None
    assert right is not None
    assert right["y"] > left["y"]
    assert abs(right["x"] - left["x"]) < 1
    for name in ("A is better", "B is better", "Tie", "Skip", "Undo", "Note"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
        assert box["y"] + box["height"] <= 667
    page.get_by_role("button", name="B is better").tap()
    expect_count(page, "1 of 20")
    phone.close()


CONTRAST = """() => {
    const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const color = numbers(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const poor = [];
    let seen = 0;
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
        if (!own || !node.checkVisibility() || node.matches(":disabled, :disabled *, .visually-hidden")) continue;
        seen += 1;
        const [one, other] = [light(numbers(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (other + 0.05);
        if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
    }
    return { seen, poor };
}"""


FOCUSED = """() => {
    const at = document.activeElement;
    return [getComputedStyle(at).outlineStyle, at.id || at.dataset.choice || at.tagName];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_names_and_focus(browser: Any, review: Review, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    begin(page, review, "ada")
    press(page, "a", "1 of 20")
    found = page.evaluate(CONTRAST)
    assert found["seen"] > 15
    assert found["poor"] == []
    # Everything that can be reached has a name, and shows that it is reached.
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [tabindex='0'], progress")]
            .filter((node) => node.checkVisibility() && !node.textContent.trim() && !node.labels?.length
                && !node.getAttribute("aria-label") && !node.getAttribute("aria-labelledby"))
            .map((node) => node.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        outline, name = page.evaluate(FOCUSED)
        reached.add(name)
        assert outline != "none" or name == "BODY", f"{name} does not show its focus"
    assert {"turns", "left", "right", "tie", "skip", "undo", "note-open", "raw", "help"} <= reached
    assert page.evaluate("document.getElementById('status').getAttribute('aria-live')") == "polite"
    assert page.locator("#status").inner_text() == "Saved: A is better"
    context.close()


def test_keys_can_be_turned_off_and_stay_off_in_fields(page: Page, review: Review) -> None:
    begin(page, review, "ada")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("a")
    page.get_by_label("Answer with these keys").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("a")
    page.keyboard.press("Control+a")
    page.get_by_role("button", name="Tie").click()
    expect_count(page, "1 of 20")
    assert answered(page) == 1


def test_a_key_held_down_is_one_answer(page: Page, review: Review, labels: Path) -> None:
    begin(page, review, "ada")
    page.keyboard.down("a")
    for _ in range(5):
        page.keyboard.down("a")  # repeats, as the system sends them
    page.keyboard.up("a")
    expect_count(page, "1 of 20")
    page.wait_for_timeout(300)
    expect_count(page, "1 of 20")


def test_several_objectives_and_skipped_questions(page: Page, tmp_path: Path, labels: Path) -> None:
    data = write_lines(tmp_path / "two.jsonl", made_pairs(2))
    options = ("--constitution", "hhh", "--objective", "helpfulness", "--objective", "honesty", "--annotator", "ada")
    with Review(data, labels, "--port", 0, *options) as running:
        page.goto(running.url())
        expect(page.locator("#objective")).to_have_text("helpfulness (1 of 2)")
        expect(page.get_by_role("button", name="Change annotator")).to_be_hidden()
        page.get_by_text("What to go by").click()
        expect(page.locator("#principles li").first).to_be_visible()
        press(page, "a", "1 of 4")
        expect(page.locator("#objective")).to_have_text("honesty (2 of 2)")
        expect(page.locator("#number")).to_have_text("pair 1 of 2")
        press(page, "s", "1 of 4, 1 skipped")
        press(page, "b", "2 of 4, 1 skipped")
        press(page, "t", "3 of 4, 1 skipped")
        page.get_by_role("button", name="Go through the skipped ones").click()
        # The objective stands there already; that nothing is skipped any more says that the question is open.
        expect_count(page, "3 of 4")
        expect(page.locator("body")).not_to_have_class("busy")
        expect(page.locator("#objective")).to_have_text("honesty (2 of 2)")
        press(page, "t", "4 of 4")
        expect(page.locator("#done-text")).to_have_text("4 answers are saved. The labels are in human.jsonl.")
    assert [(row["id"], row["objective"]) for row in read_lines(labels)] == [
        (f"pair-{n}", name) for n in (0, 1) for name in ("helpfulness", "honesty")
    ]


def test_markdown_conversation_and_right_to_left(page: Page, tmp_path: Path, labels: Path) -> None:
    prompt = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "שלום"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "A list?"},
    ]
    text = "# Title\n\n- one\n- two **bold**\n\n| x | y |\n|--:|---|\n| 1 | 2 |\n\n```python\nprint('<b>')\n```\n\n[site](https://example.org/a)"
    row = {"id": "1", "prompt": prompt, "response_a": text, "response_b": text}
    with Review(write_lines(tmp_path / "rich.jsonl", [row]), labels, "--port", 0, "--annotator", "ada") as running:
        page.goto(running.url())
        expect(page.locator(".role")).to_have_text(["System", "User", "Assistant", "User"])
        assert page.locator(".turn p").nth(1).evaluate("node => getComputedStyle(node).direction") == "rtl"
        left = page.locator("#left")
        expect(left.locator("li")).to_have_text(["one", "two bold"])
        expect(left.locator("strong")).to_have_text("bold")
        expect(left.locator("td")).to_have_text(["1", "2"])
        expect(left.locator("pre")).to_have_text("print('<b>')\n")
        link = left.get_by_role("link", name="site")
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        # Where a link leads is part of what is judged.
        assert "https://example.org/a" in link.evaluate("node => getComputedStyle(node, '::after').content")
        page.get_by_role("button", name="Raw text").click()
        assert left.inner_text() == text
        expect(page.get_by_role("button", name="Raw text")).to_have_attribute("aria-pressed", "true")
