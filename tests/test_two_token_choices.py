"""Choices that a vocabulary writes as a shorter one and one more token (`10` as `1` and `0`), in every engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from transformers import AutoTokenizer

from examples.tiny_judge import make_tiny_judge
from rlaif.engines.chat import ChatTokenizer, LongerChoices
from rlaif.engines.logprobs import longer_choices, share_out, with_bounds, worth_reading_on
from rlaif.errors import RunError
from rlaif.labeling.verdicts import read_rating
from rlaif.types import Completion, JudgeRequest
from tests.test_http import RunningScript, Scripted, ask, chat, one, token
from tests.test_transformers_engine import ask as ask_here
from tests.test_transformers_engine import complete, engine_of, plain_next, plain_prompt, writing

MARKER = "Rating: ["
TO_TEN = tuple(map(str, range(1, 11)))
RATED: dict[str, Any] = {"verdict_prefix": MARKER, "choices": TO_TEN}


def logs(**shares: float) -> dict[str, float]:
    """Log-probabilities of choices: `_7=0.3`."""
    return {name.removeprefix("_"): math.log(share) for name, share in shares.items()}


def test_sharing_out() -> None:
    # P(10) = 0.5 x 0.3, and what is left of 1 is 0.5 x 0.7.
    shared = share_out(logs(_1=0.5, _7=0.4), "1", {"10": math.log(0.3)})
    assert shared == pytest.approx(logs(_1=0.35, _7=0.4, _10=0.15))
    # Two that go on from 1, and one that is a token of its own as well: 0.05 + 0.4 x 0.5.
    shared = share_out(logs(_1=0.4, _10=0.05), "1", {"10": math.log(0.5), "12": math.log(0.25)})
    assert shared == pytest.approx(logs(_1=0.1, _10=0.25, _12=0.1))
    # All of it, also where rounding makes it more than all.
    for rest in (0.0, 1e-7):
        assert share_out({"1": -1.0}, "1", {"10": rest}) == {"1": -math.inf, "10": pytest.approx(-1.0)}
    assert share_out({"1": -1.0}, "1", {"10": -math.inf}) == {"1": -1.0, "10": -math.inf}


def test_which_choices_begin_others() -> None:
    assert longer_choices(TO_TEN) == {"1": ["10"]}
    assert longer_choices(("0", "1", "10", "11", "2", "20")) == {"1": ["10", "11"], "2": ["20"]}
    assert longer_choices(("A", "B")) == {}


def test_what_is_worth_reading_on() -> None:
    # The choices have 0.5 together; one in 10,000 of it is 0.00005.
    assert worth_reading_on(logs(_1=0.000_06, _7=0.5), "1")
    assert not worth_reading_on(logs(_1=0.000_04, _7=0.5), "1")
    # In proportion to what the choices have, however little that is.
    assert worth_reading_on(logs(_1=1e-9, _7=1e-9), "1")
    assert not worth_reading_on({"7": -0.1}, "1")
    assert not worth_reading_on({"1": -math.inf, "7": -math.inf}, "1")


def test_several_choices_off_the_list_share_what_it_leaves_over() -> None:
    # 0.04 is left for four choices, and the least on the list has 0.02.
    listed = [math.log(p) for p in (0.9, 0.04, 0.02)]
    found = with_bounds({"7": listed[0]}, ("6", "7", "8", "9", "5"), listed)
    assert found == pytest.approx(logs(_6=0.01, _7=0.9, _8=0.01, _9=0.01, _5=0.01))


@pytest.fixture(scope="module")
def whole_numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny judge with a vocabulary that has 10 as one token."""
    return make_tiny_judge(tmp_path_factory.mktemp("models") / "judge", ["Rating: [10] Rating: [1]"] * 50)


def chat_of(folder: Path) -> ChatTokenizer:
    return ChatTokenizer(AutoTokenizer.from_pretrained(folder), 8192)


def test_how_a_vocabulary_writes_the_choices(tiny_judge: Path, whole_numbers: Path) -> None:
    digits, whole = chat_of(tiny_judge), chat_of(whole_numbers)
    ids: Any = digits.tokenizer.convert_tokens_to_ids
    found = digits.spellings(MARKER, TO_TEN)
    assert found.longer == (LongerChoices("1", ids("1"), {"10": ids("0")}),)
    assert "10" not in found.tokens
    assert (found.steps, ids("7") in found.tokens["7"]) == (2, True)
    found = whole.spellings(MARKER, TO_TEN)
    assert (found.longer, found.steps) == ((), 1)
    assert list(found.tokens["10"]) == [whole.tokenizer.convert_tokens_to_ids("10")]
    assert (digits.spellings("Verdict:", ("A", "B")).longer, digits.spellings("", ()).tokens) == ((), {})
    scale = digits.spellings(MARKER, ("1", "2", "10", "11", "20"))
    assert [(longer.first, list(longer.rests)) for longer in scale.longer] == [("1", ["10", "11"]), ("2", ["20"])]


@pytest.mark.parametrize("choices", [("1", "10", "100"), ("10", "20", "30")])
def test_choices_of_more_tokens_are_refused(tiny_judge: Path, choices: tuple[str, ...]) -> None:
    with pytest.raises(RunError, match="no single token for the choice '10"):
        chat_of(tiny_judge).spellings(MARKER, choices)


def plain_ratings(folder: Path, text: str) -> dict[str, float]:
    """A second implementation: probability of each rating after a text, `10` as the digits 1 and 0."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    first = plain_next(folder, text).exp()
    found = {
        digit: sum(float(first[i]) for i in range(len(tokenizer)) if tokenizer.decode([i]).strip() == digit)
        for digit in "123456789"
    }
    zero = float(plain_next(folder, f"{text}1").exp()[tokenizer.convert_tokens_to_ids("0")])
    return {**found, "1": found["1"] * (1 - zero), "10": found["1"] * zero}


def shares(completion: Completion) -> dict[str, float]:
    return {choice: math.exp(logprob) for choice, logprob in completion.choice_logprobs.items()}


def test_ratings_equal_plain_forward_passes(tiny_judge: Path) -> None:
    given = ["", "It is short.", "It helps, and it is right about what it says.", ""]
    reading = [ask_here(n, 1 + 17 * n, rationale=text, **RATED) for n, text in enumerate(given)]
    requests = [*reading, *(writing(n, 4 + n, max_tokens=6, **RATED) for n in range(3))]
    engine = engine_of(tiny_judge)
    tokenizer = AutoTokenizer.from_pretrained(tiny_judge)
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        said = completion.rationale.rstrip()
        text = plain_prompt(request) + (f"{said}\n\n{MARKER}" if said else MARKER)
        assert shares(completion) == pytest.approx(plain_ratings(tiny_judge, text), rel=1e-3)
        if request.rationale is not None:
            # Both readings are counted, the second one with the 1 before it.
            count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2 * count + 1, 2)
    engine.close()


def test_what_is_asked_together_changes_no_rating(tiny_judge: Path) -> None:
    """Verdicts and ratings of several scales in one batch: each reads on where its own choices go on."""
    requests = [
        ask_here(0, 5, **RATED),
        ask_here(1, 7),
        ask_here(2, 9, verdict_prefix=MARKER, choices=("1", "2", "10", "20")),
        ask_here(3, 3, verdict_prefix=MARKER, choices=("1", "2", "3")),
    ]
    together, alone = engine_of(tiny_judge), engine_of(tiny_judge)
    for request, completion in zip(requests, complete(together, requests), strict=True):
        (single,) = complete(alone, [request])
        assert completion.choice_logprobs == pytest.approx(single.choice_logprobs, abs=1e-4)
        assert completion.usage == single.usage
    assert complete(together, requests) == complete(together, requests)


def test_a_vocabulary_with_whole_numbers_reads_once(whole_numbers: Path) -> None:
    (completion,) = complete(engine_of(whole_numbers), [ask_here(0, **RATED)])
    assert completion.choice_logprobs.keys() == set(TO_TEN)
    assert completion.usage.completion_tokens == 1
    ten = AutoTokenizer.from_pretrained(whole_numbers).convert_tokens_to_ids("10")
    expected = float(plain_next(whole_numbers, plain_prompt(ask_here(0)) + MARKER)[ten])
    assert completion.choice_logprobs["10"] == pytest.approx(expected, abs=1e-5)


class Tokenizing(Scripted):
    """A server as vLLM's, one token a character; with `whole`, 10 is one token."""

    def __init__(self, reply: Callable[[dict[str, Any]], web.Response], *, whole: bool) -> None:
        super().__init__(reply, vllm=True)
        self._whole = whole

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        text = (await request.json()).get("prompt", "")
        tokens = [ord(char) for char in text.replace("10", "\uffff" if self._whole else "10")]
        return web.json_response({"count": len(tokens), "tokens": tokens})


def served(reply: Callable[[dict[str, Any]], web.Response], kind: str) -> RunningScript:
    """A server that cannot tokenize (`blind`), splits digits (`digits`) or has 10 as a token (`whole`)."""
    running = RunningScript(reply, vllm=True)
    if kind != "blind":
        running.server = Tokenizing(reply, whole=kind == "whole")
    return running


def reply_with(first: dict[str, float], second: dict[str, float], body: dict[str, Any]) -> web.Response:
    """Answer a reading with these probabilities, those of `second` after a 1; with its ids where it asks for ids."""
    if not body.get("continue_final_message"):
        return chat("It is right.\n\n", stop_reason=MARKER)
    turn = body["messages"][-1]["content"]
    assert turn in (f"It is right.\n\n{MARKER}", f"It is right.\n\n{MARKER}1")
    shares = second if turn.endswith("1") else first
    listed = {text: math.log(share) for text, share in shares.items()}
    if wanted := body.get("logprob_token_ids"):
        codes = {0xFFFF if text == "10" else ord(text): logprob for text, logprob in listed.items()}
        listed = {f"token_id:{i}": codes.get(i, -50.0) for i in wanted}
    tops = [{"token": text, "logprob": logprob} for text, logprob in listed.items()]
    return chat("7", [{**tops[0], "top_logprobs": tops}])


FIRST, SECOND = {"1": 0.5, "7": 0.3, "8": 0.1, "x": 0.06, "y": 0.04}, {"0": 0.6, "]": 0.4}


@pytest.mark.parametrize("kind", ["digits", "blind"])
def test_a_server_is_asked_what_comes_after_1(kind: str) -> None:
    with served(partial(reply_with, FIRST, SECOND), kind) as stub:
        completion = one(stub, ask(**RATED))
        bodies = stub.state.bodies[-3:]
    assert [body["messages"][-1]["content"][-2:] for body in bodies[1:]] == [" [", "[1"]
    found = shares(completion)
    # 0.5 x 0.6 and 0.5 x 0.4.
    assert {rating: found[rating] for rating in ("1", "7", "8", "10")} == pytest.approx(
        {"1": 0.2, "7": 0.3, "8": 0.1, "10": 0.3}
    )
    # The write and both readings are counted.
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (30, 15)
    if kind == "digits":
        assert bodies[2]["logprob_token_ids"] == [ord("0")]
        reading = read_rating(TO_TEN, completion)
        # (0.2 + 2.1 + 0.8 + 3.0) / 0.9
        assert reading.rating == pytest.approx(6.1 / 0.9)
        assert reading.choice_mass == pytest.approx(0.9)
    else:
        assert bodies[2]["top_logprobs"] == 20


@pytest.mark.parametrize("kind", ["digits", "blind"])
def test_a_server_is_not_asked_on_where_1_has_no_weight(kind: str) -> None:
    with served(partial(reply_with, {"7": 0.9, "8": 0.09, "1": 1e-6}, {}), kind) as stub:
        completion = one(stub, ask(**RATED))
        assert len(stub.state.bodies[-2:]) == 2
        assert stub.state.bodies[-1]["messages"][-1]["content"].endswith(MARKER)
    assert shares(completion)["1"] == pytest.approx(1e-6)
    assert shares(completion).get("10", 0.0) == 0.0


@pytest.mark.parametrize("kind", ["whole", "blind"])
def test_a_server_whose_vocabulary_has_10(kind: str) -> None:
    with served(partial(reply_with, {"10": 0.5, "1": 0.2, "7": 0.3}, {}), kind) as stub:
        completion = one(stub, ask(**RATED))
        assert stub.state.bodies[-1]["messages"][-1]["content"].endswith(MARKER)
    found = shares(completion)
    assert {rating: found[rating] for rating in ("1", "7", "10")} == pytest.approx({"1": 0.2, "7": 0.3, "10": 0.5})


def test_a_server_that_does_not_say_what_comes_after_1() -> None:
    def reply(body: dict[str, Any]) -> web.Response:
        answer = reply_with(FIRST, SECOND, body)
        turn = body["messages"][-1]["content"]
        return chat("0") if turn.endswith("1") else answer

    with served(reply, "blind") as stub:
        completion = one(stub, ask(**RATED))
    assert completion.choice_logprobs == {}
    assert read_rating(TO_TEN, completion).status == "unread"


def in_one_pass(text: str, *positions: dict[str, Any]) -> Completion:
    """The answer of a server that writes rationale and rating in one text."""
    begin = [token("Fine. "), token("Rating"), token(": [")]
    with RunningScript(lambda body: chat(f"Fine. {text}", [*begin, *positions])) as stub:
        return one(stub, ask(**RATED))


def listed(text: str, **others: float) -> dict[str, Any]:
    """A position where `text` was written, and what else it could have been: `_7=0.3`."""
    shares = {name.removeprefix("_"): share for name, share in others.items()}
    return token(text, shares.pop(text), **shares)


DIGITS = {"_1": 0.5, "_7": 0.3, "_8": 0.1}


def test_one_pass_reads_a_10_of_two_tokens() -> None:
    completion = in_one_pass("Rating: [10]", listed("1", **DIGITS), token("0", 0.6, **{"]": 0.4}), token("]"))
    assert completion.hard_choice == "10"
    found = shares(completion)
    # 0.1 is left over for six others, and 10 is not one of them.
    expected = {"1": 0.2, "7": 0.3, "8": 0.1, "10": 0.3} | dict.fromkeys("234569", 0.1 / 6)
    assert found == pytest.approx(expected)
    # (0.2 + 2.1 + 0.8 + 3.0) + 29 / 60
    assert read_rating(TO_TEN, completion).rating == pytest.approx(6.1 + 29 / 60)


def test_one_pass_does_not_guess_how_much_of_1_is_10() -> None:
    for completion in (
        in_one_pass("Rating: [7]", listed("7", **DIGITS), token("]")),
        in_one_pass("Rating: [1", listed("1", **DIGITS)),
        in_one_pass("Rating: [1]", listed("1", **DIGITS), {"token": "]", "logprob": None, "top_logprobs": None}),
    ):
        found = shares(completion)
        assert not {"1", "10"} & found.keys()
        assert read_rating(TO_TEN, completion).choice_mass == pytest.approx(0.5)  # 0.3 + 0.1 + what is left over
    # A vocabulary that lists 10 has a 1 that is a 1.
    completion = in_one_pass("Rating: [7]", listed("7", _7=0.6, _1=0.1, _10=0.2), token("]"))
    found = shares(completion)
    assert {rating: found[rating] for rating in ("1", "10")} == pytest.approx({"1": 0.1, "10": 0.2})


@pytest.mark.parametrize(
    ("text", "expected"), [("10]", "10"), ("1]", "1"), ("**7**", "7"), ("7.", "7"), ("7.5]", None), ("11]", None)]
)
def test_a_written_rating_is_a_whole_one(text: str, expected: str | None) -> None:
    completion = in_one_pass(f"Rating: [{text}")
    assert completion.hard_choice == expected
    reading = read_rating(TO_TEN, completion)
    assert (reading.rating, reading.status) == ((float(expected), "ok") if expected else (None, "unread"))


def test_a_request_of_a_judge_needs_room_for_both_tokens(tiny_judge: Path) -> None:
    request: JudgeRequest = ask_here(0, 1, **RATED)
    tokenizer = AutoTokenizer.from_pretrained(tiny_judge)
    count = len(tokenizer(plain_prompt(request) + MARKER, add_special_tokens=False)["input_ids"])
    rated = request.model_copy(update={"rationale": "x" * 60})
    more = len(tokenizer(f"{plain_prompt(request)}{'x' * 60}\n\n{MARKER}", add_special_tokens=False)["input_ids"])
    assert more > count + 20
    fits, short = (engine_of(tiny_judge, max_model_len=str(more + room)) for room in (2, 1))
    assert complete(fits, [rated])[0].error is None
    assert (
        complete(short, [rated])[0].error
        == f"the prompt has {more} tokens and needs 2 more; the judge takes {more + 1}"
    )
