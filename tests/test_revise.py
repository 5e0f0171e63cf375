"""Critique and revision: chains, their files, and going on after a kill."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from examples.tiny_judge import CHAT_TEMPLATE, make_tiny_judge
from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs, read_prompts, side_of
from rlaif.data.sources import open_source
from rlaif.engines.chat import with_thought
from rlaif.errors import InputError
from rlaif.labeling.chains import ChainPlanner, text_name
from rlaif.labeling.writing import Writer, fault_of, said
from rlaif.prompts import BREAK, load_template
from rlaif.types import Completion, JudgeRequest, Message, Prompt
from tests.conftest import Cli, read_lines, write_lines
from tests.processes import answered, interrupt, kill_and_continue, start, wait_for
from tests.stub_server import RunningStub, StubSettings

EXAMPLES = Path(__file__).parents[1] / "examples" / "prompts.jsonl"
TWO_RULES = """
name: two
objectives:
  tone:
    weight: 0.75
    question: Which response is kinder?
    principles:
      - {id: no-insult, text: Prefer the response that insults nobody., weight: 3}
      - {id: warm, text: Prefer the response that is warm., weight: 1}
      - {id: off, text: Prefer the response that is blue., weight: 0}
  facts:
    weight: 0.25
    question: Which response is right?
    principles:
      - {id: right, text: Prefer the response that is right.}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A constitution of two objectives, with three principles in use."""
    path = tmp_path / "two.yaml"
    path.write_text(TWO_RULES)
    return path


def planner(rules: Path, *objectives: str, rounds: int = 1, temperature: float = 0.0, **given: Any) -> ChainPlanner:
    """Plan chains by the two rules; the judge's temperature and the seed may be given."""
    constitution = load_constitution(rules)
    return ChainPlanner(
        constitution,
        objectives or tuple(constitution.objectives),
        load_template("critique"),
        load_template("revision"),
        policy=Writer("policy", 1.0, 64, 0),
        judge=Writer("judge", temperature, 64, 0),
        rounds=rounds,
        seed=given.get("seed", 0),
    )


def prompt_of(text: str = "Say hello.", response: str | None = None, name: str = "p") -> Prompt:
    """A prompt of one turn."""
    return Prompt(id=name, messages=(Message(role="user", content=text),), response=response)


def unanswered(key: str) -> Completion | None:
    """A ledger without answers."""
    return None


def revised(prompts: Path, out: Path, stub: RunningStub, **options: Any) -> list[dict[str, Any]]:
    """Revise through the stub; the lines of the file."""
    package.revise(prompts, out, base_url=stub.url, **options)
    return read_lines(out)


def stub_text(body: dict[str, Any]) -> str:
    """What the stub answers to a request without a stop word, white space at its ends left out."""
    digest = hashlib.sha256(repr(body["messages"]).encode()).hexdigest()[:12]
    p = (
        0.02
        + 0.96
        * int.from_bytes(hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).digest()[:8])
        / 2**64
    )
    return f"Response A and response B differ ({digest}).\n\nVerdict: {'A' if p > 0.5 else 'B'}"


def made_files(out: Path) -> dict[str, bytes]:
    """The bytes of all files of one call, by what they are."""
    kinds = ("sft", "pairs", "rejects")
    beside = {kind: out.with_name(f"{out.stem}.{kind}.jsonl").read_bytes() for kind in kinds}
    return {"out": out.read_bytes(), **beside}


# --- chains


def test_texts_are_named_by_their_place() -> None:
    names = [text_name(place) for place in range(5)]
    assert names == [
        "first response",
        "critique of round 1",
        "revision of round 1",
        "critique of round 2",
        "revision of round 2",
    ]


def test_a_chain_asks_for_critique_then_revision_of_the_latest_response(rules: Path) -> None:
    chains = planner(rules, rounds=2)
    given: dict[str, Completion] = {}
    prompt = prompt_of("Say hello.")
    words = ["FIRST", "CRITIQUE-1", "SECOND", "CRITIQUE-2", "THIRD"]
    shown = []
    for stage, word in enumerate(words):
        chain = chains.follow(prompt, 0, given.get, stage)
        assert (chain.texts, chain.failure) == (words[:stage], None)
        request = chains.request(chain)
        shown.append(request)
        given[request.key] = Completion(key=request.key, rationale=f" {word}\n")
    assert [turn.content for turn in shown[0].messages] == ["Say hello."]
    last = [request.messages[-1].content for request in shown]
    assert "FIRST" in last[1]
    assert "CRITIQUE-1" not in last[1]
    assert "FIRST" in last[2]
    assert "CRITIQUE-1" in last[2]
    # The second round is about the first revision; the first response and its critique are gone.
    assert "SECOND" in last[3]
    assert "FIRST" not in last[3]
    assert "SECOND" in last[4]
    assert "CRITIQUE-2" in last[4]
    assert "CRITIQUE-1" not in last[4]
    for request, drawn in zip(shown[1::2], chain.drawn, strict=True):
        assert drawn.principle.text in request.messages[-1].content
        assert (request.principle, request.objective.rpartition(": ")[2]) == (drawn.principle.id, drawn.objective)
    whole = chains.follow(prompt, 0, given.get, chains.stages)
    assert whole.texts == words
    assert len({request.key for request in shown}) == 5


def test_a_given_response_is_the_first_text_and_is_not_asked_for(rules: Path) -> None:
    chains = planner(rules)
    chain = chains.follow(prompt_of(response="Go away."), 0, unanswered, 1)
    assert (chain.texts, chain.finish_reasons) == (["Go away."], [None])
    assert "Go away." in chains.request(chain).messages[-1].content


@pytest.mark.parametrize(
    ("completion", "failure"),
    [
        (Completion(key="k", error="too long", finish_reason="error"), "no critique of round 1: too long"),
        (Completion(key="k", rationale="half", finish_reason="refused"), "server refused to write it"),
        (Completion(key="k", rationale=" \n"), "the critique of round 1 is empty"),
        (Completion(key="k", rationale="<think>a</think> "), "the critique of round 1 is empty"),
        (Completion(key="k", rationale="<think>a", finish_reason="length"), "ended inside a thought; allow more"),
    ],
)
def test_what_is_no_text_ends_a_chain(completion: Completion, failure: str, rules: Path) -> None:
    chain = planner(rules).follow(prompt_of(response="Hi."), 0, unanswered, 1)
    chain.take(completion)
    assert chain.failure is not None
    assert failure in chain.failure
    assert chain.texts == ["Hi."]


def test_thoughts_are_cut() -> None:
    assert said("<think>\nA plan.\n</think>\n\nHello.\n") == "Hello."
    # The chat template opened the thought.
    assert said("A plan.</think>Hello.") == "Hello."
    assert said("<think>\nA plan") == ""
    assert said(with_thought("A plan", opened=True)) == ""
    assert said(with_thought("A plan</think>Hello.", opened=True)) == "Hello."
    assert with_thought("Hello.", opened=False) == "Hello."
    assert with_thought("<think>a", opened=True) == "<think>a"
    assert fault_of(Completion(key="k", rationale="<think>a</think>b")) is None


def test_principles_are_drawn_by_weight(rules: Path) -> None:
    chains = planner(rules)
    count = 8000
    found = Counter(
        chains.follow(prompt_of(f"Prompt {n}"), 0, unanswered, 0).drawn[0].principle.id for n in range(count)
    )
    # tone has 0.75 of the weight, of which no-insult has 3/4; facts has 0.25, all of it for one principle.
    expected = {"no-insult": 0.5625, "warm": 0.1875, "right": 0.25}
    assert found.keys() == expected.keys()
    for name, share in expected.items():
        # Five standard deviations.
        assert abs(found[name] / count - share) < 5 * (share * (1 - share) / count) ** 0.5


def test_a_chain_draws_no_principle_twice_before_all_were_drawn(rules: Path) -> None:
    chains = planner(rules, rounds=7)
    for n in range(50):
        names = [drawn.principle.id for drawn in chains.follow(prompt_of(), n, unanswered, 0).drawn]
        assert sorted(names[:3]) == sorted(names[3:6]) == ["no-insult", "right", "warm"]


def test_draws_follow_from_seed_prompt_given_response_and_chain(rules: Path) -> None:
    def drawn(prompt: Prompt, number: int, seed: int = 0) -> list[str]:
        chain = planner(rules, rounds=6, seed=seed).follow(prompt, number, unanswered, 0)
        return [each.principle.id for each in chain.drawn]

    assert drawn(prompt_of(), 3) == drawn(prompt_of(name="other id"), 3)
    assert len({tuple(drawn(prompt_of(), number)) for number in range(20)}) > 5
    assert len({tuple(drawn(prompt_of(), 0, seed)) for seed in range(20)}) > 5
    assert len({tuple(drawn(prompt_of(response=f"{n}"), 0)) for n in range(20)}) > 5


def test_objectives_that_all_weigh_nothing_count_alike(rules: Path) -> None:
    rules.write_text(TWO_RULES.replace("0.75", "0").replace("0.25", "1"))
    drawn = [planner(rules, "tone").follow(prompt_of(), n, unanswered, 0).drawn[0] for n in range(40)]
    assert {each.principle.id for each in drawn} == {"no-insult", "warm"}
    assert {each.objective for each in drawn} == {"tone"}


def first_critique(prompt: Prompt, number: int, chains: ChainPlanner) -> JudgeRequest:
    """The request for a chain's first critique."""
    return chains.request(chains.follow(prompt, number, unanswered, 1))


def test_a_key_covers_what_changes_the_answer_and_no_more(rules: Path) -> None:
    prompt = prompt_of(response="Hi.")
    one = planner(rules, "facts")
    key = first_critique(prompt, 0, one).key
    # Without sampling, another chain and another seed ask the same thing.
    assert first_critique(prompt, 1, one).key == key
    assert first_critique(prompt_of(response="Hi.", name="q"), 0, one).key == key
    warm = planner(rules, "facts", temperature=0.7)
    keys = [first_critique(prompt, number, warm).key for number in range(3)]
    others = [
        first_critique(prompt_of(response="Ho."), 0, one).key,
        first_critique(prompt, 0, planner(rules, "tone")).key,
    ]
    assert len({key, *keys, *others}) == 6
    messages = (Message(role="user", content="Hi."),)
    writers = [Writer("a", 0.0, 64, 0), Writer("b", 0.0, 64, 0), Writer("a", 0.0, 65, 0), Writer("a", 0.5, 64, 0)]
    writers += [Writer("a", 0.5, 64, 1)]
    assert len({writer.request("p", messages).key for writer in writers}) == 5


def test_control_tokens_of_a_prompt_are_broken_up_for_the_policy(rules: Path) -> None:
    chains = planner(rules)
    request = chains.request(chains.follow(prompt_of("<|im_start|>system"), 0, unanswered, 0))
    assert request.messages[0].content == f"<{BREAK}|im_start|>system"


# --- the files, through a server


def test_every_step_and_what_is_made_of_it(stub: RunningStub, tmp_path: Path, rules: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "one", "prompt": "Say hello.", "response": "Go away.", "tags": {"kind": "rude"}},
        {"id": "two", "prompt": [{"role": "user", "content": "Say bye."}]},
        {"prompt": 5},
        {"id": "four", "prompt": "Say yes.", "response": " "},
        {"id": "five", "prompt": "Say no.", "response": [{"role": "assistant", "content": "No."}]},
    ]
    out = tmp_path / "revised.jsonl"
    prompts = write_lines(tmp_path / "prompts.jsonl", rows)
    summary = package.revise(prompts, out, base_url=stub.url, constitution=rules, rounds=2)
    assert (summary.prompts, summary.chains, summary.pairs, summary.unchanged) == (3, 3, 3, 0)
    assert (summary.rejected, summary.failed, summary.truncated) == (2, 0, 0)
    # One first response, and of each of three chains two critiques and two revisions.
    assert (summary.asked, summary.reused) == (13, 0)
    asked = [body for body in stub.state.bodies if len(body["messages"]) > 1 or "Say bye." in str(body["messages"])]
    texts = {stub_text(body) for body in asked}
    lines = read_lines(out)
    assert [line["id"] for line in lines] == ["one", "two", "five"]
    assert [line["response"] for line in lines[::2]] == ["Go away.", "No."]
    assert lines[1]["response"] in texts
    for line in lines:
        assert [step["round"] for step in line["steps"]] == [1, 2]
        assert all({step["critique"], step["revision"]} <= texts for step in line["steps"])
        assert line["revision"] == line["steps"][-1]["revision"]
        assert len({step["principle"] for step in line["steps"]}) == 2
        assert line["provenance"]["judge"].startswith("stub@")
        assert line["provenance"]["constitution"].startswith("two@")
        templates = line["provenance"]["templates"]
        assert (templates["critique"][:9], templates["revision"][:9]) == ("critique@", "revision@")
    assert lines[0]["finish_reasons"] == {
        "response": None,
        "critiques": ["stop", "stop"],
        "revisions": ["stop", "stop"],
    }
    assert lines[1]["finish_reasons"]["response"] == "stop"
    assert lines[0]["provenance"]["policy"] is None
    assert lines[1]["provenance"]["policy"] == lines[1]["provenance"]["judge"]
    assert lines[0]["tags"] == {"kind": "rude"}
    rejects = read_lines(tmp_path / "revised.rejects.jsonl")
    assert [reject["line"] for reject in rejects] == [3, 4]
    assert rejects[0]["reason"].startswith("prompt is a number")
    assert rejects[1]["reason"] == "response is empty"


def test_training_rows_are_prompt_and_completion(stub: RunningStub, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello."}])
    (line,) = revised(prompts, tmp_path / "revised.jsonl", stub)
    (row,) = read_lines(tmp_path / "revised.sft.jsonl")
    assert row == {
        "id": "one",
        "prompt": [{"role": "user", "content": "Say hello."}],
        "completion": [{"role": "assistant", "content": line["revision"]}],
        "finish_reason": "stop",
    }


def test_pairs_are_labelled_as_they_are_and_stand_on_both_sides(stub: RunningStub, tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "prompt": f"Say {n}.", "response": f"{n}"} for n in range(24)]
    out = tmp_path / "revised.jsonl"
    lines = revised(write_lines(tmp_path / "prompts.jsonl", rows), out, stub, objectives=["harmlessness"])
    pairs = [
        row[1]
        for row in read_pairs(open_source(str(tmp_path / "revised.pairs.jsonl")), {})
        if not isinstance(row, Reject)
    ]
    assert [pair.id for pair in pairs] == [line["id"] for line in lines]
    for pair, line in zip(pairs, lines, strict=True):
        side = pair.tags["revised"]
        # By hand, as chosen and rejected pairs take their sides.
        odd = hashlib.sha256(f"{line['revision']}\x00{line['response']}".encode()).digest()[0] % 2
        assert side == ("b" if odd else "a") == side_of(line["revision"], line["response"])
        shown = (pair.response_a, pair.response_b)
        assert shown == ((line["response"], line["revision"]) if odd else (line["revision"], line["response"]))
    assert {pair.tags["revised"] for pair in pairs} == {"a", "b"}
    labelled = package.label(
        tmp_path / "revised.pairs.jsonl", tmp_path / "run", base_url=stub.url, template="direct", objectives=["honesty"]
    )
    assert (labelled.pairs, labelled.judgments, labelled.rejected) == (24, 48, 0)


def test_an_unchanged_response_makes_a_training_row_and_no_pair(stub: RunningStub, tmp_path: Path) -> None:
    """A template that shows nothing of the response has the same revision for any, which is then the response."""
    template = tmp_path / "fixed.j2"
    template.write_text(
        "---\nkind: revision\n---\n{% block response %}Repeat.{% endblock %}{% block critique %}Now.{% endblock %}"
    )
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello.", "response": "?"}])
    options: dict[str, Any] = {"revision_template": template, "objectives": ["honesty"]}
    (line,) = revised(prompts, tmp_path / "first.jsonl", stub, **options)
    write_lines(prompts, [{"id": "one", "prompt": "Say hello.", "response": f"{line['revision']}\n"}])
    summary = package.revise(prompts, tmp_path / "second.jsonl", base_url=stub.url, **options)
    assert (summary.chains, summary.unchanged, summary.pairs) == (1, 1, 0)
    assert read_lines(tmp_path / "second.pairs.jsonl") == []
    (row,) = read_lines(tmp_path / "second.sft.jsonl")
    assert row["completion"][0]["content"] == line["revision"]


def test_chains_of_one_prompt(stub: RunningStub, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello.", "response": "Hm."}])
    lines = revised(prompts, tmp_path / "revised.jsonl", stub, n=6)
    assert [(line["id"], line["prompt_id"], line["chain"]) for line in lines] == [
        (f"one-{n}", "one", n) for n in range(6)
    ]
    drawn = [(line["steps"][0]["objective"], line["steps"][0]["principle"]) for line in lines]
    # Chains that draw the same principle ask the same thing, once.
    assert 1 < len(set(drawn)) <= 6
    assert len({line["revision"] for line in lines}) == len(set(drawn))
    assert len(stub.state.bodies) - 1 == 2 * len(set(drawn))


def test_a_step_that_fails_ends_its_chain_with_line_and_reason(tmp_path: Path) -> None:
    rows = [
        {"id": "good", "prompt": "Hello?", "response": "Hi."},
        {"id": "bad", "prompt": "Hello?", "response": "long " * 900},
    ]
    with RunningStub(StubSettings(max_model_len=1000)) as stub:
        out = tmp_path / "revised.jsonl"
        prompts = write_lines(tmp_path / "prompts.jsonl", rows)
        options: dict[str, Any] = {"base_url": stub.url, "max_tokens": 64}
        summary = package.revise(prompts, out, **options)
        again = package.revise(prompts, out, **options)
    assert (summary.chains, summary.failed, summary.asked) == (1, 1, 3)
    assert (again.asked, again.reused) == (0, 3)
    (reject,) = read_lines(tmp_path / "revised.rejects.jsonl")
    assert (reject["line"], reject["row"]) == (2, {"id": "bad", "chain": 0})
    assert reject["reason"].startswith("no critique of round 1: status 400: maximum context length is 1000 tokens")
    assert [line["id"] for line in read_lines(tmp_path / "revised.sft.jsonl")] == ["good"]


def test_a_policy_of_its_own_writes_the_first_response(stub: RunningStub, tmp_path: Path, tiny_judge: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello."}])
    options: dict[str, Any] = {"judge": str(tiny_judge), "engine": "transformers", "max_tokens": 8}
    out = tmp_path / "revised.jsonl"
    summary = package.revise(prompts, out, policy="stub", policy_base_url=stub.url, **options)
    (line,) = read_lines(out)
    assert line["response"].startswith("Response A and response B differ")
    assert line["provenance"]["policy"].startswith("stub@")
    assert line["provenance"]["judge"].startswith(f"{tiny_judge}@")
    # A chat probe, and the one response.
    assert len(stub.state.bodies) == 2
    assert summary.asked == 3


# --- models in this process


def test_the_starter_writes_every_step(tmp_path: Path) -> None:
    out = tmp_path / "revised.jsonl"
    options: dict[str, Any] = {"engine": "transformers", "limit": 5, "max_tokens": 24, "n": 2}
    summary = package.revise(EXAMPLES, out, rounds=2, objectives=["harmlessness"], **options)
    assert (summary.prompts, summary.chains + summary.failed) == (5, 10)
    harmlessness = load_constitution("hhh").objectives["harmlessness"]
    for line in read_lines(out):
        assert {step["objective"] for step in line["steps"]} == {"harmlessness"}
        ids = [step["principle"] for step in line["steps"]]
        assert len(set(ids)) == 2
        assert set(ids) <= {principle.id for principle in harmlessness.active}
        assert all(step["critique"].strip() and step["revision"].strip() for step in line["steps"])
        assert line["provenance"]["judge"] == line["provenance"]["policy"]
    before = made_files(out)
    again = package.revise(EXAMPLES, out, rounds=2, objectives=["harmlessness"], **options)
    assert again.asked == 0
    assert made_files(out) == before
    more = package.revise(EXAMPLES, out, rounds=3, objectives=["harmlessness"], update=True, **options)
    # The rounds that were there are kept: at most a critique and a revision of each chain are new.
    assert 0 < more.asked <= 20


def test_texts_cut_at_the_limit_are_marked(tiny_judge: Path, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": f"p{n}", "prompt": f"Say {n}."} for n in range(4)])
    options: dict[str, Any] = {"judge": str(tiny_judge), "engine": "transformers", "max_tokens": 6}
    summary = package.revise(prompts, tmp_path / "revised.jsonl", **options)
    lines = read_lines(tmp_path / "revised.jsonl")
    cut = {line["id"] for line in lines if line["finish_reasons"]["revisions"] == ["length"]}
    assert summary.truncated == len(cut) > 0
    assert {row["id"] for row in read_lines(tmp_path / "revised.sft.jsonl") if row["finish_reason"] == "length"} == cut
    pairs = read_lines(tmp_path / "revised.pairs.jsonl")
    assert {pair["id"] for pair in pairs if pair["tags"].get("truncated") is True} == cut


def test_a_model_that_only_thinks_writes_nothing(tmp_path: Path) -> None:
    """The chat template opens a thought, and the tokens end before it does: no thought is taken for a response."""
    thinking = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    judge = make_tiny_judge(tmp_path / "judge", chat_template=thinking)
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello."}])
    options: dict[str, Any] = {"engine": "transformers", "max_tokens": 6}
    summary = package.revise(prompts, tmp_path / "revised.jsonl", judge=str(judge), **options)
    assert (summary.chains, summary.failed) == (0, 1)
    (reject,) = read_lines(tmp_path / "revised.rejects.jsonl")
    assert reject["reason"] == "no first response: it ended inside a thought; allow more tokens"
    sampled = package.generate(prompts, tmp_path / "sampled.jsonl", policy=str(judge), n=2, **options)
    assert (sampled.responses, sampled.failed, sampled.rejected) == (0, 2, 1)


# --- going on


def test_killed_five_times_against_a_server(tmp_path: Path, rlaif: Cli) -> None:
    rows = [{"id": f"p{n}", "prompt": f"Say {n}."} | ({"response": "Hm."} if n % 3 else {}) for n in range(60)]
    data = write_lines(tmp_path / "prompts.jsonl", rows)
    with RunningStub(StubSettings(delay_s=0.05)) as stub:
        common = (data, "--base-url", stub.url, "--rounds", "2", "--concurrency", "16")
        assert rlaif("revise", *common, "--out", tmp_path / "whole.jsonl").returncode == 0
        out = tmp_path / "killed.jsonl"
        # 20 first responses, and four more texts of each of 60 chains.
        met, printed = kill_and_continue(out, ("revise", *common, "--out", out), 260, seed=1)
    assert met >= 3
    assert "60 chains of 60 prompts" in printed
    assert made_files(out) == made_files(tmp_path / "whole.jsonl")
    assert answered(out) == 260


def test_killed_five_times_with_a_model_in_this_process(tmp_path: Path, tiny_judge: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"id": f"p{n}", "prompt": f"Say {n}."} for n in range(70)])
    model = ("--judge", tiny_judge, "--engine", "transformers")
    common = (data, *model, "--max-tokens", "5", "--revision-temperature", "0.8")
    assert rlaif("revise", *common, "--out", tmp_path / "whole.jsonl").returncode == 0
    out = tmp_path / "killed.jsonl"
    assert kill_and_continue(out, ("revise", *common, "--out", out), 200, seed=2)[0] >= 3
    assert made_files(out) == made_files(tmp_path / "whole.jsonl")


def test_an_interrupt_ends_at_once_and_says_how_to_go_on(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Say {n}.", "response": "Hm."} for n in range(40)])
    out = tmp_path / "revised.jsonl"
    with RunningStub(StubSettings(delay_s=0.2)) as stub:
        process = start("revise", data, "--base-url", stub.url, "--concurrency", "8", "--out", out)
        wait_for(out, 48, process)  # in the second stage
        took, err = interrupt(process, signal.SIGINT)
        assert took < 2
        assert err.strip() == f"interrupted; what was written is kept in {out}.db. Give the same command to continue."
        assert not out.exists()
    kept = answered(out)
    assert 48 <= kept < 80
    with RunningStub() as stub:
        done = rlaif("revise", data, "--base-url", stub.url, "--out", out)
    assert f"{80 - kept} asked, {kept} reused" in done.stdout, done.stderr


# --- the command


def test_the_command_says_what_it_made(stub: RunningStub, tmp_path: Path, rlaif: Cli) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "One?"}, {"prompt": 5}, {"question": "Two?"}]
    data = write_lines(tmp_path / "prompts.jsonl", rows)
    out = tmp_path / "revised.jsonl"
    common = ("revise", data, "--base-url", stub.url, "--out", out)
    plan = rlaif(*common, "--dry-run")
    assert plan.stdout.splitlines() == [
        "1 prompt, 1 chain, 2 rows that cannot be used",
        "3 requests, 0 answered already, at most 3 to ask",
        "at most 1,536 new tokens",
    ]
    assert not Path(f"{out}.db").exists()
    done = rlaif(*common)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"1 chain of 1 prompt -> {out}",
        f"1 training row -> {tmp_path}/revised.sft.jsonl",
        f"1 pair, 0 unchanged -> {tmp_path}/revised.pairs.jsonl",
        "3 asked, 0 reused, 0 chains failed, 2 rows rejected",
    ]
    assert done.stderr == f"Why, with their lines: {tmp_path}/revised.rejects.jsonl\n"
    plan = rlaif(*common, "--rounds", "3", "--dry-run", "--json")
    counts = {"prompts": 1, "rejected": 2, "chains": 1, "requests": 7, "answered": 3, "to_ask": 4}
    assert json.loads(plan.stdout) == {**counts, "most_new_tokens": 2048}
    summary = json.loads(rlaif(*common, "--json").stdout)
    assert (summary["asked"], summary["reused"], summary["pairs"]) == (0, 3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "harmlesness"], r"helpfulness, harmlessness, honesty\. Did you mean harmlessness\?$"),
        (
            ["--critique-template", "pairwise-cot"],
            r"critique template .*pairwise-cot\.j2 is a comparison; give a template",
        ),
        (["--revision-template", "critique"], r"revision template .*critique\.j2 is a critique; give a template"),
        (["--critique-template", "critic"], "no such file"),
        (["--rounds", "0"], "'--rounds': 0 is not in the range"),
        (["--n", "2", "--temperature", "0"], "same first response 2 times; set a temperature"),
        (["--constitution", "nowhere"], "nowhere: no such file"),
        (["--principles", "all"], "'all' is not 'sample'"),
        (["--columns", "answer=x"], "NAME one of id, prompt"),
    ],
)
def test_bad_input_is_told_before_any_work(
    options: list[str], message: str, stub: RunningStub, tmp_path: Path, rlaif: Cli
) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}])
    done = rlaif("revise", data, "--base-url", stub.url, "--out", tmp_path / "new" / "out.jsonl", *options)
    assert done.returncode == 2
    assert re.search(message, done.stderr.strip()), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
    assert stub.state.count == 0


def test_bad_values_are_told_by_the_function_too(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}])
    with pytest.raises(InputError, match="--rounds 0: Input should be greater than or equal to 1"):
        package.revise(data, tmp_path / "out.jsonl", rounds=0)


def test_data_without_a_usable_prompt(stub: RunningStub, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": 5}, {"text": "x"}])
    with pytest.raises(InputError, match="no prompt can be used; line 1: prompt is a number"):
        revised(data, tmp_path / "out.jsonl", stub)
    data = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}])
    with pytest.raises(InputError, match="no prompt can be used; line 1: no column 'answer'"):
        revised(data, tmp_path / "out.jsonl", stub, columns="response=answer")


def test_files_of_another_making_are_not_overwritten(stub: RunningStub, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "out.pairs.jsonl", [{"prompt": "One?"}])
    before = data.read_bytes()
    with pytest.raises(InputError, match=r"out\.pairs\.jsonl: would be overwritten by --out"):
        revised(data, tmp_path / "out.jsonl", stub)
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "One?"}])
    with pytest.raises(InputError, match=r"out\.pairs\.jsonl: exists and was not made by rlaif revise"):
        revised(prompts, tmp_path / "out.jsonl", stub)
    assert data.read_bytes() == before
    sampled = tmp_path / "sampled.jsonl"
    package.generate(prompts, sampled, policy="stub", base_url=stub.url)
    before = sampled.read_bytes()
    with pytest.raises(InputError, match=r"sampled\.jsonl: exists and was not made by rlaif revise"):
        revised(prompts, sampled, stub)
    assert sampled.read_bytes() == before
    made = tmp_path / "new.jsonl"
    assert revised(prompts, made, stub) == revised(prompts, made, stub)
    before = made.read_bytes()
    with pytest.raises(InputError, match=r"new\.jsonl: exists and was not made by rlaif generate"):
        package.generate(prompts, made, policy="stub", base_url=stub.url)
    assert made.read_bytes() == before


def test_other_settings_are_refused_with_their_names_and_an_update_asks_what_they_change(
    stub: RunningStub, tmp_path: Path, rules: Path, rlaif: Cli
) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"id": "one", "prompt": "Say hello.", "response": "Hm."}])
    out = tmp_path / "revised.jsonl"
    options: dict[str, Any] = {"objectives": ["facts"], "constitution": rules}
    (line,) = revised(prompts, out, stub, **options)
    before, count = made_files(out), stub.state.count
    manifest = json.loads((tmp_path / "revised.manifest.json").read_text())
    assert (manifest["state"], manifest["counts"]["chains"]) == ("done", 1)
    rules.write_text(TWO_RULES.replace("that is right", "that is true"))
    common = ("revise", prompts, "--base-url", stub.url, "--constitution", rules, "--objective", "facts", "--out", out)
    refused = rlaif(*common, "--rounds", "2")
    assert refused.returncode == 2
    changed = r"\(constitution: [0-9a-f]{12} -> [0-9a-f]{12}; rounds: 1 -> 2\)"
    message = rf"^Error: {out}: made with other settings {changed}; add --update to ask what they change, or .*--out\.$"
    assert re.fullmatch(message, refused.stderr.strip()), refused.stderr
    # Nothing but the probe of what the server is.
    assert all("Hm." not in str(body) for body in stub.state.bodies[count:])
    assert made_files(out) == before
    # The reworded principle stands in both questions of the one chain.
    updated = json.loads(rlaif(*common, "--update", "--json").stdout)
    assert (updated["asked"], updated["reused"]) == (2, 0)
    (other,) = read_lines(out)
    assert other["steps"][0]["critique"] != line["steps"][0]["critique"]
    # Back again: the answers were kept.
    rules.write_text(TWO_RULES)
    again = package.revise(prompts, out, base_url=stub.url, update=True, **options)
    assert (again.asked, again.reused) == (0, 2)
    assert made_files(out) == before


def test_a_response_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """`rlaif generate` has no use for it, so it takes rows whose `response` is of any kind."""
    data = write_lines(
        tmp_path / "prompts.jsonl", [{"prompt": "One?", "response": 5}, {"prompt": "Two?", "response": None}]
    )
    source = open_source(str(data))
    plain = [row for row in read_prompts(source, {}) if not isinstance(row, Reject)]
    assert [prompt.response for _, prompt in plain] == [None, None]
    first, second = read_prompts(source, {}, responses=True)
    assert isinstance(first, Reject)
    assert first.reason == "response is a number; expected a text"
    assert not isinstance(second, Reject)
    assert second[1].response is None
    assert second[1].id == plain[1][1].id
