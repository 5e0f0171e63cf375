"""A cascade from data to labels, against a server whose judge is sure, unsure or inconsistent by the pair's number."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.errors import InputError, Interrupted
from rlaif.labeling import api
from rlaif.labeling.ask import Tally
from tests import stub_server
from tests.conftest import ROOT, Cli, made_pairs, read_lines, write_lines
from tests.processes import start
from tests.stub_server import RunningStub

ONE: dict[str, Any] = {"objectives": ["honesty"]}
DIRECT: dict[str, Any] = {**ONE, "cascade": "direct,pairwise-cot"}


def judged(messages: list[dict[str, Any]]) -> float:
    """P(A) of a judge that with a rationale always prefers response a of even pairs and response b of odd ones.

    Without one it is as sure of that (0.93) but for every fifth pair, where it leans to the other response (0.62), and
    for those that end in 3, where it prefers whatever is shown first.
    """
    user = [turn["content"] for turn in messages if turn["role"] == "user"][-1]
    if "legs have " not in user:
        return 0.5
    number = int(user.rsplit("legs have ", 1)[1].split(" ")[0])
    a_first = user.index(" legs.") < user.index("I do not know.")
    if messages[-1]["role"] == "assistant" and "differ (" in messages[-1]["content"]:
        p_a = 0.9
    elif number % 10 == 3:
        return 0.9 if a_first else 0.7
    else:
        p_a = 0.38 if number % 5 == 0 else 0.93
    p_a = p_a if number % 2 == 0 else 1 - p_a
    return p_a if a_first else 1 - p_a


def escalates(number: int) -> bool:
    """Whether the judge without a rationale is not to be believed about a pair."""
    return number % 5 == 0 or number % 10 == 3


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningStub]:
    monkeypatch.setattr(stub_server, "probability_of", judged)
    with RunningStub() as server:
        yield server


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "pairs.jsonl", made_pairs(100))


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "pairs.jsonl", made_pairs(40))


def labels_of(run: Path) -> dict[str, dict[str, Any]]:
    """The labels of a run, without what says how they were made."""
    lines = read_lines(run / "labels.jsonl")
    for line in lines:
        del line["provenance"]
    return {line["id"]: line for line in lines}


def without_stage(labels: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The labels as a run without a cascade has them."""
    for line in labels.values():
        for label in line["labels"].values():
            del label["stage"]
    return labels


def stages_of(run: Path, objective: str = "honesty") -> dict[int, str]:
    """Which stage decided each pair, by its number."""
    found = labels_of(run)
    return {int(name.removeprefix("pair-")): line["labels"][objective]["stage"] for name, line in found.items()}


def tokens_of(run: Path) -> int:
    with sqlite3.connect(run / "judgments.db") as db:
        (total,) = db.execute("SELECT sum(prompt_tokens + completion_tokens) FROM completions").fetchone()
    return int(total)


def test_the_cheap_stage_decides_what_it_is_sure_of(judge: RunningStub, hundred: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = package.label(hundred, run, base_url=judge.url, cascade_sample=60, **DIRECT)
    assert stages_of(run) == {n: "pairwise-cot" if escalates(n) else "direct" for n in range(100)}
    plain = {}
    for template in ("direct", "pairwise-cot"):
        package.label(hundred, tmp_path / template, base_url=judge.url, template=template, **ONE)
        plain[template] = labels_of(tmp_path / template)
    mine, stages = without_stage(labels_of(run)), stages_of(run)
    assert all(mine[f"pair-{n}"] == plain[stages[n]][f"pair-{n}"] for n in range(100))
    report = found.cascade
    assert report is not None
    direct, last = (stage.objectives["honesty"] for stage in report.stages)
    # The wrong ones are 0.62 sure, the right ones 0.93: the threshold goes down to the last one above that.
    assert (direct.threshold, direct.asked, direct.accepted) == (0.65, 100, 70)
    assert (direct.unsure, direct.inconsistent, direct.unread) == (20, 10, 0)
    assert (last.threshold, last.asked, last.accepted) == (None, 30, 30)
    assert direct.agreement is not None
    assert direct.agreement.share == report.agreement["honesty"].share == 1.0
    assert report.agreement["honesty"].n == 60
    assert 0.8 < report.agreement["honesty"].ci[0] < 1
    # Every answer of the ledger is one that the labels rest on.
    spent, alone = report.tokens.spent, report.tokens.last_stage
    assert spent.total == tokens_of(run) == direct.tokens + last.tokens + report.tokens.sample.total
    assert (spent.prompt, spent.completion) == (found.prompt_tokens, found.completion_tokens)
    assert alone is not None
    assert alone.total == pytest.approx(tokens_of(tmp_path / "pairwise-cot"), rel=0.02)
    assert report.tokens.saved == alone.total - spent.total
    # All pairs in the first stage; 30 in the last one, and there also those of the sample that it need not decide.
    assert found.asked == found.judgments == 2 * (100 + 30 + direct.agreement.n)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["counts"]["cascade"] == report.model_dump(mode="json")
    assert manifest["settings"]["cascade"] == "direct,pairwise-cot"


def test_the_same_command_again_asks_nothing(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {**DIRECT, "base_url": judge.url, "cascade_sample": 24, "cascade_agreement": 0.7}
    first = package.label(forty, run, **options)
    before = (run / "labels.jsonl").read_bytes()
    again = package.label(forty, run, **options)
    assert (again.asked, again.reused, again.judgments) == (0, first.judgments, first.judgments)
    assert again.cascade == first.cascade
    assert (run / "labels.jsonl").read_bytes() == before


def test_where_nothing_is_accepted_the_labels_are_the_last_stage_s(
    stub: RunningStub, forty: Path, tmp_path: Path
) -> None:
    # This server's verdicts are drawn: two templates agree by chance alone.
    found = package.label(
        forty, tmp_path / "run", base_url=stub.url, cascade_sample=24, cascade_agreement=0.7, **DIRECT
    )
    package.label(forty, tmp_path / "last", base_url=stub.url, **ONE)
    package.label(
        forty, tmp_path / "all", base_url=stub.url, cascade="direct,pairwise-cot", cascade_threshold=1.0, **ONE
    )
    last = labels_of(tmp_path / "last")
    assert without_stage(labels_of(tmp_path / "run")) == last
    assert without_stage(labels_of(tmp_path / "all")) == last
    assert found.cascade is not None
    part = found.cascade.stages[0].objectives["honesty"]
    assert (part.threshold, part.asked, part.accepted) == (None, 0, 0)
    assert part.why is not None
    # Only the sample was asked the first stage.
    assert found.judgments == 80 + 2 * 24
    assert found.cascade.agreement["honesty"].ci == (1.0, 1.0)


def test_a_fixed_threshold_needs_no_sample(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {**DIRECT, "base_url": judge.url}
    found = package.label(forty, run, cascade_threshold=0.58, **options)
    # 0.62 is enough now: only inconsistent ones go on.
    assert stages_of(run) == {n: "pairwise-cot" if n % 10 == 3 else "direct" for n in range(40)}
    assert found.asked == 80 + 8
    assert found.cascade is not None
    assert found.cascade.wanted is None
    assert found.cascade.agreement == {}
    with pytest.raises(InputError, match=r"cascade_threshold: 0.58 -> 0.65.*; add --update"):
        package.label(forty, run, cascade_threshold=0.65, **options)
    stricter = package.label(forty, run, cascade_threshold=0.65, update=True, **options)
    # The eight that are 0.62 sure go on, and nothing else is asked.
    assert stricter.asked == 16
    assert stages_of(run) == {n: "pairwise-cot" if escalates(n) else "direct" for n in range(40)}
    back = package.label(forty, run, cascade_threshold=0.58, update=True, **options)
    assert back.asked == 0
    assert back.cascade == found.cascade


def test_a_run_goes_over_to_a_cascade_and_back(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    package.label(forty, run, base_url=judge.url, template="direct", **ONE)
    plain = labels_of(run)
    with pytest.raises(InputError, match="cascade: null -> direct,pairwise-cot"):
        package.label(forty, run, base_url=judge.url, cascade_threshold=0.65, **DIRECT)
    over = package.label(forty, run, base_url=judge.url, cascade_threshold=0.65, update=True, **DIRECT)
    assert (over.asked, over.reused) == (24, 80)
    back = package.label(forty, run, base_url=judge.url, template="direct", update=True, **ONE)
    assert back.asked == 0
    assert back.cascade is None
    assert labels_of(run) == plain


def test_interrupted_anywhere_and_continued_to_the_same_bytes(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        **DIRECT,
        "base_url": judge.url,
        "cascade_sample": 24,
        "cascade_agreement": 0.7,
        "concurrency": 4,
    }
    whole = package.label(forty, tmp_path / "whole", **options)
    run = tmp_path / "run"
    asked = met = 0
    for limit in (10, 25, 5, 20, 3, 1):

        def stop(tally: Tally, limit: int = limit) -> None:
            if tally.asked >= limit:
                raise KeyboardInterrupt

        try:
            package.label(forty, run, watch=stop, **options)
        except Interrupted:
            met += 1
        with sqlite3.connect(run / "judgments.db") as db:
            (held,) = db.execute("SELECT count(*) FROM completions").fetchone()
        assert held >= asked
        asked = held
    assert met >= 3
    done = package.label(forty, run, **options)
    assert done.reused >= asked
    assert done.judgments == whole.judgments
    assert (run / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    assert tokens_of(run) == tokens_of(tmp_path / "whole")


def test_killed_and_continued(judge: RunningStub, forty: Path, tmp_path: Path, rlaif: Cli) -> None:
    words: tuple[object, ...] = (
        "label",
        forty,
        "--base-url",
        judge.url,
        "--objective",
        "honesty",
        "--concurrency",
        "2",
    )
    words += ("--cascade", "direct,pairwise-cot", "--cascade-sample", "24", "--cascade-agreement", "0.7")
    whole = rlaif(*words, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "run"
    for answers in (30, 100):
        process = start(*words, "--out", run)
        while process.poll() is None:
            path = run / "judgments.db"
            if path.exists() and count_completions(path) >= answers:
                process.kill()
                break
        process.communicate()
    done = rlaif(*words, "--out", run)
    assert done.returncode == 0, done.stderr
    assert (run / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    assert done.stdout.splitlines()[2:] == whole.stdout.splitlines()[2:]


def count_completions(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_batches_of_a_model_in_this_process_follow_from_the_plan(tmp_path: Path) -> None:
    data = ROOT / "examples" / "pairs.jsonl"
    options: dict[str, Any] = {
        "engine": "transformers",
        "limit": 8,
        "max_tokens": 8,
        "cascade": "direct,pairwise-cot",
        "cascade_threshold": 0.75,
        "objectives": ["helpfulness"],
    }
    whole = package.label(data, tmp_path / "whole", **options)
    assert whole.cascade is not None
    # The starter is sure of some and not of others, or this would show nothing.
    assert 0 < whole.cascade.stages[1].objectives["helpfulness"].asked < 8

    def stop(tally: Tally) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(Interrupted):
            package.label(data, tmp_path / "run", watch=stop, **options)
    package.label(data, tmp_path / "run", **options)
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()


def test_people_are_the_reference_where_they_are_given(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    # People prefer what the judge does, but for pairs 0 to 4; they are split on pair 30, and did not label those after.
    rows = [
        {"id": f"pair-{n}", "annotator": "ann", "objective": "honesty", "preference": "ab"[(n % 2) ^ (n < 5)]}
        for n in range(31)
    ]
    rows.append({**rows[30], "annotator": "bob", "preference": "b"})
    human = write_lines(tmp_path / "human.jsonl", rows)
    options: dict[str, Any] = {**DIRECT, "base_url": judge.url, "cascade_labels": human, "cascade_agreement": 0.6}
    found = package.label(forty, tmp_path / "run", **options)
    assert found.cascade is not None
    assert (found.cascade.reference, found.cascade.sample) == (str(human), 30)
    alone = found.cascade.last_stage_agreement["honesty"]
    assert (alone.agreed, alone.n) == (25, 30)
    direct = found.cascade.stages[0].objectives["honesty"]
    # Of the thirty, 0, 5, 10, 15, 20 and 25 are unsure and 3, 13 and 23 inconsistent; of the other 21 people contradict
    # 1, 2 and 4. 18 of 21 show 0.671, and with the six unsure ones, of which people like one, 19 of 27 show 0.528.
    assert direct.agreement is not None
    assert (direct.threshold, direct.agreement.agreed, direct.agreement.n) == (0.65, 18, 21)
    # The first stage's and the last one's labels agree on what the threshold accepts.
    assert found.cascade.agreement["honesty"].agreed == 25
    write_lines(human, rows[:-1])
    with pytest.raises(InputError, match=r"cascade_labels: .* add --update"):
        package.label(forty, tmp_path / "run", **options)


def test_two_judges_each_at_its_server(judge: RunningStub, forty: Path, tmp_path: Path) -> None:
    with RunningStub() as other:
        stages = f"direct,pairwise-cot@{other.url}"
        found = package.label(
            forty, tmp_path / "run", base_url=judge.url, cascade=stages, cascade_threshold=0.65, **ONE
        )
        asked = {url: sum(state.good.values()) for url, state in ((judge.url, judge.state), (other.url, other.state))}
    assert found.asked == 80 + 24
    # The second server answers the 24 that went on, each in two steps.
    assert asked[other.url] >= 48
    assert asked[judge.url] <= 80 + 5
    # The server serves what the first one does, under the same name: it is the same judge in all but its place.
    assert set(stages_of(tmp_path / "run").values()) == {"direct", "pairwise-cot@stub"}


def test_three_stages_with_samples_and_ratings(judge: RunningStub, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(20))
    options: dict[str, Any] = {"base_url": judge.url, "samples": 2, "temperature": 0.7, **ONE}
    found = package.label(
        data, tmp_path / "run", cascade="direct,few-shot,pairwise-cot", cascade_threshold=0.65, **options
    )
    assert found.cascade is not None
    asked = [stage.objectives["honesty"].asked for stage in found.cascade.stages]
    # 0, 5, 10, 15 are unsure, 3 and 13 inconsistent; with a rationale the judge is sure, and none comes to the third.
    assert asked == [20, 6, 0]
    assert found.judgments == 20 * 2 + 6 * 2 * 2
    verdicts = {line["id"]: line["labels"]["honesty"]["verdicts"] for line in read_lines(tmp_path / "run/labels.jsonl")}
    assert {verdicts[f"pair-{n}"] for n in (0, 3, 5)} == {4}
    assert {verdicts[f"pair-{n}"] for n in (1, 2, 4)} == {2}
    assert found.cascade.tokens.last_stage is None
    drawn = package.label(
        data, tmp_path / "drawn", cascade="direct,pairwise-cot", cascade_threshold=0.65, principles="sample", **options
    )
    assert drawn.judgments == 20 * 2 + 6 * 2 * 2


def test_more_samples_in_an_earlier_stage_leave_none_behind(judge: RunningStub, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(20))
    options: dict[str, Any] = {"base_url": judge.url, "samples": 3, "temperature": 0.7, **ONE}
    # A rationale is 0.9 sure, so that all go on, to a stage of one sample.
    found = package.label(data, tmp_path / "run", cascade="pairwise-cot,direct", cascade_threshold=0.95, **options)
    assert set(stages_of(tmp_path / "run").values()) == {"direct"}
    assert {line["labels"]["honesty"]["verdicts"] for line in read_lines(tmp_path / "run" / "labels.jsonl")} == {2}
    assert found.judgments == 20 * 2 * 3 + 20 * 2


def test_other_commands_read_the_run(judge: RunningStub, forty: Path, tmp_path: Path, rlaif: Cli) -> None:
    run = tmp_path / "run"
    words = ("label", forty, "--base-url", judge.url, "--out", run, "--cascade", "direct,pairwise-cot")
    done = rlaif(*words, "--cascade-sample", "24", "--cascade-agreement", "0.7", "--objective", "honesty")
    assert done.returncode == 0, done.stderr
    assert ["direct", "honesty", "0.65", "40", "28", "8", "4", "0", "30.0%"] in [
        line.split()[:-1] for line in done.stdout.splitlines()
    ]
    assert (
        "With 95% confidence, what a stage accepts under an objective agrees with pairwise-cot in 70.0%" in done.stdout
    )
    shown = rlaif("show", run).stdout
    assert "\n".join(done.stdout.splitlines()[3:]) in shown
    pair = rlaif("show", run, "pair-5").stdout
    assert "pairwise-cot" in pair
    assert "Response A and response B differ" in pair
    assert "(no rationale)" in rlaif("show", run, "pair-1").stdout
    human = [
        {"id": f"pair-{n}", "annotator": "ann", "objective": "honesty", "preference": "ab"[n % 2]} for n in range(40)
    ]
    compared = rlaif("compare", run, write_lines(tmp_path / "human.jsonl", human), "--json")
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["objectives"]["honesty"]["accuracy"] == 1.0


def test_a_dry_run_tells_the_least_and_the_most(judge: RunningStub, forty: Path, tmp_path: Path, rlaif: Cli) -> None:
    options: dict[str, Any] = {**DIRECT, "base_url": judge.url, "cascade_sample": 24, "cascade_agreement": 0.7}
    plan = api.dry_run(forty, tmp_path / "run", **options)
    assert plan.cascade is not None
    # One stage of all 40 pairs and the other of the sample's 24; or both of all. Each in two orders.
    assert (plan.cascade.least.requests, plan.requests, plan.cascade.sample) == (128, 160, 24)
    assert [stage.sample.requests for stage in plan.cascade.stages] == [48, 48]
    found = package.label(forty, tmp_path / "run", **options)
    assert plan.cascade.least.requests <= found.asked <= plan.requests
    after = api.dry_run(forty, tmp_path / "run", **options)
    assert after.answered == found.asked
    assert after.cascade is not None
    assert after.cascade.stages[0].all.answered == 80
    told = rlaif(
        "label", forty, "--base-url", judge.url, "--objective", "honesty", "--cascade", "direct,pairwise-cot",
        "--cascade-sample", "24", "--cascade-agreement", "0.7", "--out", tmp_path / "new", "--dry-run",
    )  # fmt: skip
    assert "if one stage decides all: 128 requests, 128 to ask" in told.stdout
    assert "if every pair comes to every stage: 160 requests, 160 to ask" in told.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cascade": "direct"}, "--cascade direct: needs two stages or more"),
        ({"cascade": "direct,pairwise-cott"}, r"pairwise-cott: not a template .* serves stub, not pairwise-cott"),
        ({"cascade": "direct,pairwise-cot@gpt"}, r"pairwise-cot@gpt: .* serves stub, not gpt; .*@http://HOST:PORT"),
        ({"cascade": "direct,critique"}, "template critique: is for a critique"),
        ({"cascade": "direct,direct@stub"}, "the stages direct and direct@stub ask the same judge the same template"),
        ({"cascade": "direct,,pairwise-cot"}, r"--cascade \(empty\): neither a template"),
        ({"cascade": "direct,pairwise-cot", "orders": "ab"}, "--cascade with --orders ab: whether the orders agree"),
        (
            {"cascade": "direct,pairwise-cot", "calibration": "c.json"},
            "--calibration holds for the labels of one judge",
        ),
        ({"cascade": "direct,pairwise-cot", "cascade_agreement": 0.3}, "--cascade-agreement 0.3"),
        ({"cascade_sample": 5}, "--cascade-sample has a meaning only with --cascade"),
        ({"cascade_threshold": 0.9}, "--cascade-threshold has a meaning only with --cascade"),
        (
            {"cascade": "direct,pairwise-cot", "cascade_threshold": 0.9, "cascade_sample": 50},
            "--cascade-sample sets a threshold, and --cascade-threshold gives one",
        ),
        ({"cascade": "direct,rating", "samples": 2}, "--samples 2 with --temperature 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    options: dict[str, Any], expected: str, stub: RunningStub, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        package.label(pairs, tmp_path / "run", base_url=stub.url, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_mistakes_without_a_server(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"pairwise-cott: neither a template .* nor a judge .* Did you mean pairwise-cot?"
    ):
        package.label(pairs, tmp_path / "run", cascade="direct,pairwise-cott")
    human = write_lines(tmp_path / "h.jsonl", [{"id": "x", "annotator": "a", "objective": "tone", "preference": "a"}])
    with pytest.raises(InputError, match=r"prefers no response under helpfulness, .* \(it labels tone\)"):
        package.label(pairs, tmp_path / "run", cascade="direct,pairwise-cot", cascade_labels=human)
    write_lines(human, [{"id": "x", "annotator": "a", "objective": "honesty", "preference": "a"}])
    with pytest.raises(InputError, match=r"labels no pair of the data \(it labels 'x', for one\)"):
        package.label(pairs, tmp_path / "run", cascade="direct,pairwise-cot", cascade_labels=human)
