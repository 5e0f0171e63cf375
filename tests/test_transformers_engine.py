"""A judge in this process: its numbers against a plain second implementation, where it stops, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.tiny_judge import CHAT_TEMPLATE
from rlaif.engines.base import EngineArgs, ModelIdentity
from rlaif.engines.chat import cut_at_verdict
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import InputError, RunError
from rlaif.labeling.verdicts import read_choice
from rlaif.types import Completion, JudgeRequest, Message

FLOAT32 = {"dtype": "float32"}


def engine_of(folder: Path, **args: str) -> TransformersEngine:
    return TransformersEngine(ModelIdentity(name=str(folder), digest="tiny"), EngineArgs({**FLOAT32, **args}))


@pytest.fixture(scope="module")
def engine(tiny_judge: Path) -> Iterator[TransformersEngine]:
    made = engine_of(tiny_judge)
    yield made
    made.close()


def ask(number: int, words: int = 3, **changes: Any) -> JudgeRequest:
    """Request `number`, its prompt so many words long; it reads the choice at once unless told otherwise."""
    text = " ".join(f"{number}helps{n}" for n in range(words))
    values: dict[str, Any] = {
        "key": hashlib.sha256(f"{number} {words} {changes}".encode()).hexdigest(),
        "pair_id": str(number),
        "messages": (Message(role="system", content="Be fair."), Message(role="user", content=text)),
        "verdict_prefix": "Verdict:",
        "choices": ("A", "B"),
        "rationale": "",
        "max_tokens": 0,
        **changes,
    }
    return JudgeRequest(**values)


def writing(number: int, words: int = 3, max_tokens: int = 24, **changes: Any) -> JudgeRequest:
    """Request `number`, for which the judge is to write a rationale."""
    return ask(number, words, **{"rationale": None, "max_tokens": max_tokens, **changes})


def complete(engine: TransformersEngine, requests: Sequence[JudgeRequest]) -> list[Completion]:
    """Every completion, in the order of the requests."""
    found = {completion.key: completion for completion in engine.complete(requests)}
    assert len(found) == len(requests)
    return [found[request.key] for request in requests]


@cache
def plain(folder: Path) -> tuple[Any, Any]:
    """The same model, used without any of our code."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), model.eval()


def plain_prompt(request: JudgeRequest) -> str:
    turns = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in request.messages)
    return f"{turns}<|im_start|>assistant\n"


def plain_next(folder: Path, text: str | list[int]) -> torch.Tensor:
    """Log-probabilities of the next token, from one forward pass without padding."""
    tokenizer, model = plain(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if isinstance(text, str) else text
    with torch.no_grad():
        logprobs: torch.Tensor = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return logprobs


def plain_reading(folder: Path, text: str) -> dict[str, float]:
    """Log-probability of each choice: a sum over all tokens of the vocabulary that spell it."""
    tokenizer, _ = plain(folder)
    logprobs = plain_next(folder, text)
    spelled = {c: [i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip() == c] for c in "AB"}
    return {c: math.log(sum(math.exp(float(logprobs[i])) for i in ids)) for c, ids in spelled.items()}


def plain_greedy(folder: Path, request: JudgeRequest, stops: Iterable[int]) -> tuple[str, int, bool]:
    """A greedy answer token by token: its text, its length in tokens, and whether a stop token ended it."""
    tokenizer, _ = plain(folder)
    prompt = tokenizer(plain_prompt(request), add_special_tokens=False)["input_ids"]
    written: list[int] = []
    while len(written) < request.max_tokens:
        token = int(plain_next(folder, prompt + written).argmax())
        if token in stops:
            return tokenizer.decode(written, skip_special_tokens=True), len(written) + 1, True
        written.append(token)
        if request.choices and request.verdict_prefix in tokenizer.decode(written, skip_special_tokens=True):
            break
    return tokenizer.decode(written, skip_special_tokens=True), len(written), False


def logprobs_of(completion: Completion) -> list[float]:
    return [completion.choice_logprobs[choice] for choice in "AB"]


def test_readings_equal_plain_forward_passes(engine: TransformersEngine, tiny_judge: Path) -> None:
    given = ["", "", "A is short.", "Both help. B says more, and it is right about it.", "", "No.", "A <|im_end|> B"]
    requests = [ask(n, 1 + 17 * n, rationale=text) for n, text in enumerate(given)]
    read = complete(engine, requests)
    for request, completion in zip(requests, read, strict=True):
        turn = f"{request.rationale}\n\nVerdict:" if request.rationale else "Verdict:"
        text = plain_prompt(request) + turn.replace("<|im_end|>", "<\u200b|im_end|>")
        expected = plain_reading(tiny_judge, text)
        assert logprobs_of(completion) == pytest.approx([expected["A"], expected["B"]], abs=1e-5)
        count = len(plain(tiny_judge)[0](text, add_special_tokens=False)["input_ids"])
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (count, 1)
        assert (completion.finish_reason, completion.rationale) == ("stop", request.rationale)
    # The judge tells the requests apart; equal numbers everywhere would prove nothing.
    assert max(logprobs_of(c)[0] for c in read) - min(logprobs_of(c)[0] for c in read) > 0.05


def test_rationales_equal_a_plain_greedy_loop(engine: TransformersEngine, tiny_judge: Path) -> None:
    stops = {plain(tiny_judge)[0].eos_token_id}
    requests = [writing(n, 1 + 11 * n, max_tokens=12 + 4 * n) for n in range(5)]
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        text, length, ended = plain_greedy(tiny_judge, request, stops)
        assert completion.rationale == text
        assert completion.finish_reason == ("stop" if ended else "length")
        # Cut off or not, the verdict is read.
        reading = read_choice(("A", "B"), completion)
        assert reading.status == ("ok" if ended else "truncated")
        expected = plain_reading(tiny_judge, f"{plain_prompt(request)}{text.rstrip()}\n\nVerdict:")
        odds = math.exp(expected["A"] - expected["B"])
        assert reading.p_first == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert completion.usage.completion_tokens == length + 1


def test_a_rationale_stops_at_the_marker(engine: TransformersEngine, tiny_judge: Path) -> None:
    long = [writing(n, 5, max_tokens=40) for n in range(3)]
    texts = [plain_greedy(tiny_judge, request, {2})[0] for request in long]
    # A marker that each judge does write, somewhere in the middle; ASCII, as half a letter cannot be found.
    markers = [next(text[i : i + 3] for i in range(8, len(text)) if text[i : i + 3].isascii()) for text in texts]
    assert all(len(marker.strip()) > 1 for marker in markers)
    requests = [r.model_copy(update={"verdict_prefix": m}) for r, m in zip(long, markers, strict=True)]
    for request, text, completion in zip(requests, texts, complete(engine, requests), strict=True):
        assert completion.rationale == text[: text.index(request.verdict_prefix)]
        assert completion.finish_reason == "stop"
        # What stands after the marker was neither written nor paid for.
        assert completion.usage.completion_tokens == plain_greedy(tiny_judge, request, {2})[1] + 1 < 41


def copy_judge(folder: Path, to: Path, **generation: Any) -> Path:
    """The judge with other generation settings of its own."""
    shutil.copytree(folder, to)
    path = to / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **generation}))
    return to


def test_every_stop_token_of_a_model_ends_its_answer(tiny_judge: Path, tmp_path: Path) -> None:
    request = writing(1, 5, max_tokens=30)
    tokenizer, _ = plain(tiny_judge)
    prompt = tokenizer(plain_prompt(request), add_special_tokens=False)["input_ids"]
    written: list[int] = []
    while len(written) < 10:
        written.append(int(plain_next(tiny_judge, prompt + written).argmax()))
    # Let the tenth token be a stop token beside the tokenizer's own.
    folder = copy_judge(tiny_judge, tmp_path / "judge", eos_token_id=[0, written[-1]])
    text, length, ended = plain_greedy(tiny_judge, request, {0, tokenizer.eos_token_id, written[-1]})
    assert ended
    (completion,) = complete(engine_of(folder), [request])
    assert (completion.rationale, completion.finish_reason) == (text, "stop")
    assert completion.usage.completion_tokens == length + 1


def test_a_models_own_generation_settings_do_not_tilt_the_judge(
    engine: TransformersEngine, tiny_judge: Path, tmp_path: Path
) -> None:
    tilted = {
        "repetition_penalty": 5.0,
        "top_k": 1,
        "top_p": 0.1,
        "temperature": 3.0,
        "do_sample": True,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 20,
        "suppress_tokens": list(range(3, 400)),
        "stop_strings": ["e"],
    }
    other = engine_of(copy_judge(tiny_judge, tmp_path / "judge", **tilted))
    requests = [writing(1), writing(2, temperature=1.0)]
    for request in requests:
        assert complete(other, [request]) == complete(engine, [request])


def test_sampling_follows_from_the_requests(engine: TransformersEngine) -> None:
    def texts(requests: list[JudgeRequest]) -> list[str]:
        return [completion.rationale for completion in complete(engine, requests)]

    requests = [writing(n, temperature=1.0) for n in range(3)]
    once = texts(requests)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert texts(requests) == once
    # The caller's own random numbers are left as they were.
    assert torch.equal(before, torch.get_rng_state())
    # Another sample, or another seed, has another key and draws another text from the same words.
    words = requests[0].messages
    others = [writing(n, temperature=1.0, sample=1, messages=words) for n in range(3)]
    assert len({*texts(others), once[0]}) == 4


def test_the_same_group_gives_the_same_floats(engine: TransformersEngine) -> None:
    requests = [ask(n, 1 + 3 * n) for n in range(8)] + [writing(n, 4 + n, max_tokens=8) for n in range(4)]
    assert complete(engine, requests) == complete(engine, requests)
    # The order in which a group is given changes nothing either: batches go by length and key.
    assert complete(engine, requests[::-1]) == complete(engine, requests)[::-1]


def test_more_requests_than_a_group_are_drawn_lazily(engine: TransformersEngine) -> None:
    drawn = 0

    def requests() -> Iterator[JudgeRequest]:
        nonlocal drawn
        for n in range(130):
            drawn += 1
            yield ask(n)

    answers = engine.complete(requests())
    first = next(answers)
    assert drawn == engine.atomic_batch == 64
    assert len({first.key, *(completion.key for completion in answers)}) == drawn == 130


def test_small_batches_give_the_same_answers(engine: TransformersEngine, tiny_judge: Path) -> None:
    requests = [ask(n, 5 + 9 * n) for n in range(6)] + [writing(n, max_tokens=8) for n in range(2)]
    small = engine_of(tiny_judge, batch_tokens="64")
    for one, other in zip(complete(engine, requests), complete(small, requests), strict=True):
        assert logprobs_of(one) == pytest.approx(logprobs_of(other), abs=1e-5)
        assert one.rationale == other.rationale


def test_what_does_not_fit_has_a_reason(tiny_judge: Path) -> None:
    engine = engine_of(tiny_judge, max_model_len="160")
    assert engine.details["max_model_len"] == 160
    long_rationale = ask(2, 1, rationale="A is better. " * 60)
    too_long, fits, overfull = complete(engine, [ask(0, 200), ask(1, 1), long_rationale])
    assert (too_long.finish_reason, too_long.choice_logprobs) == ("error", {})
    assert too_long.error is not None
    assert too_long.error.startswith("the prompt has over 160 tokens and needs")
    assert fits.error is None
    assert len(fits.choice_logprobs) == 2
    assert (overfull.finish_reason, overfull.choice_logprobs) == ("error", {})
    assert overfull.rationale == long_rationale.rationale


def test_a_rationale_gets_what_room_there_is(engine: TransformersEngine, tiny_judge: Path) -> None:
    tokenizer, _ = plain(tiny_judge)
    request = writing(3, 1, max_tokens=500)
    prompt = len(tokenizer(plain_prompt(request), add_special_tokens=False)["input_ids"])
    # Room for sixteen tokens, besides the marker and eight more.
    small = engine_of(tiny_judge, max_model_len=str(prompt + 16 + 8 + len("Verdict:")))
    cut = request.model_copy(update={"max_tokens": 16})
    text, length, ended = plain_greedy(tiny_judge, cut, {tokenizer.eos_token_id})
    assert not ended
    (completion,) = complete(small, [request])
    assert (completion.rationale, completion.finish_reason) == (text, "length")
    assert completion.usage.completion_tokens == length + 1 == 17
    assert len(completion.choice_logprobs) == 2


def test_a_policy_gives_text(engine: TransformersEngine, tiny_judge: Path) -> None:
    request = writing(1, choices=(), verdict_prefix="")
    (completion,) = complete(engine, [request])
    text, length, ended = plain_greedy(tiny_judge, request, {plain(tiny_judge)[0].eos_token_id})
    assert (completion.rationale, completion.choice_logprobs) == (text, {})
    assert completion.finish_reason == ("stop" if ended else "length")
    prompt = len(plain(tiny_judge)[0](plain_prompt(request), add_special_tokens=False)["input_ids"])
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (prompt, length)


def test_a_template_that_refuses_ends_a_judges_run_but_not_a_policys(tiny_judge: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(tiny_judge, folder)
    refuses = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('a user speaks last') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refuses + CHAT_TEMPLATE)
    engine = engine_of(folder)
    odd: dict[str, Any] = {"messages": (Message(role="user", content="Hi"), Message(role="assistant", content="Ho"))}
    policy: dict[str, Any] = {"choices": (), "verdict_prefix": ""}
    good, bad = complete(engine, [writing(1, **policy), writing(2, **policy, **odd)])
    assert good.error is None
    assert bad.error == "the chat template refuses the messages (a user speaks last); use a chat model."
    with pytest.raises(RunError, match="a user speaks last"):
        complete(engine, [writing(1), writing(2, **odd)])


def test_thoughts_that_the_template_opens_are_closed(tiny_judge: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(tiny_judge, folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE + "{{ '<think>\n' }}")
    request = writing(1, max_tokens=8)
    (completion,) = complete(engine_of(folder), [request])
    assert cut_at_verdict(completion.rationale, "Verdict:", thought_opened=True) == (completion.rationale, False)
    text = f"{plain_prompt(request)}<think>\n{completion.rationale.rstrip()}\n</think>\n\nVerdict:"
    expected = plain_reading(tiny_judge, text)
    assert logprobs_of(completion) == pytest.approx([expected["A"], expected["B"]], abs=1e-5)
    assert completion.finish_reason == "length"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"dtype": "float8_e4m3fn"}, "--engine-arg dtype=float8_e4m3fn: expected auto, float32, bfloat16 or float16"),
        ({"dtype": "nn"}, "--engine-arg dtype=nn: expected auto"),
        ({"device": "gpu"}, "--engine-arg device=gpu: not usable here"),
        ({"max_model_len": "long"}, "--engine-arg max_model_len=long: expected a number"),
        ({"temprature": "1", "beams": "2"}, "--engine-arg beams, temprature: not an option of transformers; known are"),
    ],
)
def test_an_engine_argument_that_is_none(tiny_judge: Path, args: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        engine_of(tiny_judge, **args)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model(tiny_judge: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        engine_of(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_judge, broken)
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(
        InputError, match=r"the model cannot be loaded \(.*\); a judge is a causal language model"
    ) as caught:
        engine_of(broken)
    assert "\n" not in str(caught.value)
