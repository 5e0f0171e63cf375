"""`rlaif label --calibration`: the temperatures of `rlaif compare --calibrate`, applied to a run's labels."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlaif as package
from rlaif.agreement.calibration import apply_temperature, calibrate
from rlaif.agreement.results import Comparison
from rlaif.constitution import load_constitution
from rlaif.errors import InputError
from rlaif.labeling import api
from rlaif.labeling.calibration import CalibrationFile, calibration_for, read_calibration
from rlaif.labeling.labels import fold_label
from rlaif.stats import tempered
from rlaif.types import Label, Message, Order, Pair, Provenance, Verdict
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.stub_server import RunningStub

OBJECTIVES = ("helpfulness", "honesty")
MADE_WITH = Provenance(judge="j@1", constitution="hhh@2", template="t@3", rlaif="0")


def verdicts(**given: tuple[float, float]) -> list[Verdict]:
    """A verdict of each order, by objective."""
    orders: tuple[Order, Order] = ("ab", "ba")
    return [
        Verdict(objective=name, order=order, sample=0, status="ok", p_a=p, choice_mass=0.9)
        for name, both in given.items()
        for order, p in zip(orders, both, strict=True)
    ]


def folded(temperatures: Mapping[str, float] | None, **given: tuple[float, float]) -> Label:
    """The label of one pair under `hhh`: helpfulness and harmlessness weigh 0.4, honesty 0.2."""
    pair = Pair(id="x", prompt=(Message(role="user", content="Hi"),), response_a="a", response_b="b")
    rules = load_constitution("hhh")
    return fold_label(rules, pair, tuple(given), verdicts(**given), MADE_WITH, temperatures=temperatures)


@pytest.mark.parametrize(
    ("p", "temperature", "expected"),
    [
        # Odds of 4, 1/4, 9, 1 and 4 become 2, 1/2, 3, 1 and 16.
        (0.8, 2.0, 2 / 3),
        (0.2, 2.0, 1 / 3),
        (0.9, 2.0, 3 / 4),
        (0.5, 7.0, 0.5),
        (0.8, 0.5, 16 / 17),
        # Certainty is taken to be one in a million from it: odds of 999,999 have the root 999.9995.
        (1.0, 2.0, 999.9995 / 1000.9995),
    ],
)
def test_log_odds_are_divided(p: float, temperature: float, expected: float) -> None:
    assert tempered(p, temperature) == pytest.approx(expected, abs=1e-9)
    assert tempered(1 - p, temperature) == pytest.approx(1 - expected, abs=1e-9)


def test_labels_are_put_right_as_the_temperature_was_fitted() -> None:
    p = np.linspace(0, 1, 101)
    for temperature in (1e-3, 0.4, 1.0, 3.0, 1e6):
        assert [tempered(each, temperature) for each in p] == pytest.approx(apply_temperature(p, temperature).tolist())


def test_a_label_is_calibrated_after_both_orders_are_folded() -> None:
    given = {"helpfulness": (0.9, 0.7), "honesty": (0.3, 0.1)}
    plain, label = folded(None, **given), folded({"helpfulness": 2.0}, **given)
    # The mean of 0.9 and 0.7 is 0.8, odds of 4; at 2 they are 2. Each order by itself would give 0.677.
    assert label.labels["helpfulness"].p_a == pytest.approx(2 / 3, abs=1e-12)
    assert label.labels["helpfulness"].order_gap == pytest.approx(0.2)
    assert label.labels["honesty"] == plain.labels["honesty"]
    # (0.4 x 0.8 + 0.2 x 0.2) / 0.6 = 0.6, and (0.4 x 2/3 + 0.2 x 0.2) / 0.6 = 23/45.
    assert plain.overall.p_a == pytest.approx(0.6)
    assert label.overall.p_a == pytest.approx(23 / 45)
    assert label.overall.preference == "a"


def test_no_objective_changes_sides_but_the_overall_label_may() -> None:
    given = {"helpfulness": (0.8, 0.8), "honesty": (0.02, 0.02)}
    before, after = folded({}, **given), folded({"helpfulness": 4.0}, **given)
    for name in OBJECTIVES:
        assert after.labels[name].preference == before.labels[name].preference
    # 0.4 x 0.8 + 0.2 x 0.02 is 0.54 of a weight of 0.6; the odds of 4 at 4 are sqrt 2, which is 0.5858: 0.397.
    assert (before.overall.preference, after.overall.preference) == ("a", "b")
    assert after.overall.p_a == pytest.approx((0.4 * 2**0.5 / (1 + 2**0.5) + 0.2 * 0.02) / 0.6)


def test_a_tie_and_an_abstention_stay() -> None:
    # The two orders differ by their last digits from a tie, which a low temperature must not take for a preference.
    label = folded({"helpfulness": 1e-6, "honesty": 1e-6}, helpfulness=(0.1, 0.9 + 2e-12), honesty=(0.7, 0.7))
    assert (label.labels["helpfulness"].preference, label.labels["honesty"].p_a) == ("tie", 1.0)
    assert label.labels["helpfulness"].p_a == pytest.approx(0.5)
    abstained = Verdict(objective="honesty", order="ab", sample=0, status="unread")
    pair = Pair(id="x", prompt=(Message(role="user", content="Hi"),), response_a="a", response_b="b")
    none = fold_label(
        load_constitution("hhh"), pair, ("honesty",), [abstained], MADE_WITH, temperatures={"honesty": 2.0}
    )
    assert (none.labels["honesty"].p_a, none.overall.p_a) == (None, None)


def calibration(**changed: Any) -> dict[str, Any]:
    """The content of a calibration file for labels made with `MADE_WITH`, with some of it changed."""
    content: dict[str, Any] = {"judge": "j@1", "template": "t@3", "constitution": "hhh@2", "labels": "r", "human": "h"}
    return {**content, "objectives": {"helpfulness": {"temperature": 2.0, "n": 40}}, **changed}


def applied_to(made_with: Provenance, **changed: Any) -> Any:
    """What of a calibration file applies to labels of both objectives."""
    file = CalibrationFile.model_validate(calibration(**changed))
    return calibration_for(file, Path("cal.json"), made_with, OBJECTIVES)


def test_an_objective_without_a_temperature_stays_and_says_why() -> None:
    assert applied_to(MADE_WITH).uncalibrated == {"honesty": "not in the file"}
    found = applied_to(MADE_WITH, not_defined={"honesty": "no better than a coin"})
    assert found.temperatures == {"helpfulness": 2.0}
    assert found.uncalibrated == {"honesty": "no better than a coin"}


def test_the_overall_label_is_made_of_its_objectives_not_calibrated_itself() -> None:
    both = {name: {"temperature": 2.0, "n": 40} for name in ("helpfulness", "overall")}
    found = applied_to(MADE_WITH, objectives=both)
    assert found.temperatures == {"helpfulness": 2.0}
    assert found.uncalibrated["overall"].startswith("it is made of the objectives")
    with pytest.raises(InputError, match="holds temperatures of overall, and the run labels helpfulness, honesty"):
        applied_to(MADE_WITH, objectives={"overall": {"temperature": 2.0, "n": 40}})


def test_names_may_differ_where_digests_do_not() -> None:
    renamed = MADE_WITH.model_copy(update={"template": "copy@3", "judge": "org/j@1"})
    assert applied_to(renamed).temperatures == {"helpfulness": 2.0}


def test_the_reference_tells_temperatures_apart_and_nothing_else() -> None:
    one = applied_to(MADE_WITH)
    same = applied_to(MADE_WITH, human="elsewhere", rlaif="9", not_defined={"honesty": "for want of labels"})
    other = applied_to(MADE_WITH, objectives={"helpfulness": {"temperature": 2.5, "n": 40}})
    assert one.reference == same.reference != other.reference
    assert one.reference.startswith("cal@")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge": "k@4"}, "fitted on labels of judge k@4 (the run's is j@1); fit one on this run's labels"),
        ({"judge": "j@4", "template": "t@5"}, "judge j@4 (the run's is j@1), template t@5 (the run's is t@3);"),
        ({"constitution": "hhh@9"}, "constitution hhh@9 (the run's is hhh@2);"),
        ({"judge": "j@\n\x1b[2J"}, 'judge "j@\\n\\u001b[2J" (the run\'s is j@1)'),
        ({"judge": "j", "template": None, "constitution": None}, "fitted on recorded labels of j, which do not say"),
        ({"calibrated": "cal@5"}, "fitted on labels that cal@5 had calibrated already"),
        ({"objectives": {}}, "holds temperatures of nothing, and the run labels helpfulness, honesty;"),
    ],
)
def test_what_was_fitted_on_other_labels_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        applied_to(MADE_WITH, **changed)
    assert str(caught.value).startswith("--calibration cal.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def temperature_of(value: Any) -> str:
    """A calibration file with a temperature that may be none."""
    return json.dumps(calibration(objectives={"helpfulness": {"temperature": value, "n": 40}}))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\x00\x01", "not JSON"),
        ("[]", "input should be an object"),
        ("{}", "judge: field required"),
        (json.dumps(calibration(**{"a\nb": 1})), "extra inputs are not permitted"),
        (temperature_of(0), "objectives.helpfulness.temperature: input should be greater than 0"),
        (temperature_of(-2), "objectives.helpfulness.temperature: input should be greater than 0"),
        (temperature_of(float("nan")), "objectives.helpfulness.temperature: input should be"),
        (temperature_of("warm"), "objectives.helpfulness.temperature: input should be a valid number"),
    ],
)
def test_garbage_is_refused_in_one_line(tmp_path: Path, content: str, fact: str) -> None:
    path = tmp_path / "cal.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_calibration(path)
    assert str(caught.value).startswith(f"--calibration {path}: not a calibration (")
    assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .*give a file that rlaif compare --calibrate wrote"):
            read_calibration(path)


def labels_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's labels."""
    return read_lines(run / "labels.jsonl")


def answers(run: Path) -> list[tuple[Any, ...]]:
    """What the ledger says the judge answered, by key."""
    with closing(sqlite3.connect(run / "judgments.db")) as db:
        return db.execute('SELECT key, pair_id, objective, "order", p_a FROM judgments ORDER BY 1, 2').fetchall()


def people(run: Path, path: Path) -> Path:
    """Human labels of a run: of honesty always on the judge's side, of helpfulness not on every third pair."""
    other = {"a": "b", "b": "a"}
    rows = []
    for number, line in enumerate(labels_of(run)):
        for name in OBJECTIVES:
            side = line["labels"][name]["preference"]
            said = other[side] if name == "helpfulness" and number % 3 == 0 else side
            rows.append({"id": line["id"], "annotator": "x", "objective": name, "preference": said})
    return write_lines(path, rows)


@pytest.fixture
def labelled(stub: RunningStub, tmp_path: Path) -> dict[str, Any]:
    """Options of a run of forty pairs that is done; `data` and `out` among them."""
    data = write_lines(tmp_path / "forty.jsonl", made_pairs(40))
    options: dict[str, Any] = {"data": data, "out": tmp_path / "run", "base_url": stub.url, "template": "direct"}
    options["objectives"] = OBJECTIVES
    assert package.label(**options).asked == 160
    return options


def compared(run: Path, human: Path) -> Comparison:
    """The comparison of a run with people, without the bootstrap."""
    return package.compare(run, human, resamples=0)


def test_what_compare_wrote_is_applied_and_compared(
    rlaif: Cli, stub: RunningStub, labelled: dict[str, Any], tmp_path: Path
) -> None:
    run, cal = labelled["out"], tmp_path / "cal.json"
    human = people(run, tmp_path / "human.jsonl")
    before, plain, plain_bytes = answers(run), labels_of(run), (run / "labels.jsonl").read_bytes()
    done = rlaif("compare", run, human, "--resamples", 0, "--calibrate", cal)
    assert done.returncode == 0, done.stderr
    written = json.loads(cal.read_text())
    assert "calibrated" not in written
    assert written["judge"] == plain[0]["provenance"]["judge"]
    temperature = written["objectives"]["helpfulness"]["temperature"]
    assert "on people's side on every pair" in written["not_defined"]["honesty"]

    seen = len(stub.state.bodies)
    command: tuple[object, ...] = ("label", labelled["data"], "--out", run, "--base-url", stub.url)
    command += ("--template", "direct", "--objective", "helpfulness", "--objective", "honesty", "--calibration", cal)
    refused = rlaif(*command)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert 'calibration: null -> {"helpfulness": ' in refused.stderr
    assert (run / "labels.jsonl").read_bytes() == plain_bytes
    done = rlaif(*command, "--update")
    assert done.returncode == 0, done.stderr
    assert f"Calibrated: helpfulness by temperature {temperature:.3g}\n" in done.stdout
    assert "no temperature is applied to honesty: the judge is on people's side on every pair" in done.stderr
    assert len(stub.state.bodies) == seen
    assert answers(run) == before

    human_side = {row["id"]: row["preference"] for row in read_lines(human) if row["objective"] == "helpfulness"}
    raw = np.array([line["labels"]["helpfulness"]["p_a"] for line in plain])
    gold = np.array([1.0 if human_side[line["id"]] == "a" else 0.0 for line in plain])
    expected = apply_temperature(raw, temperature)
    for old, new, p in zip(plain, labels_of(run), expected.tolist(), strict=True):
        assert new["labels"]["helpfulness"] == {**old["labels"]["helpfulness"], "p_a": pytest.approx(p, abs=1e-12)}
        assert new["labels"]["honesty"] == old["labels"]["honesty"]
        if not new["overall"]["floors"]:
            assert new["overall"]["p_a"] == pytest.approx((0.4 * p + 0.2 * old["labels"]["honesty"]["p_a"]) / 0.6)
        reference = new["provenance"].pop("calibration")
        assert new["provenance"] == old["provenance"]
        assert reference.startswith("cal@")
    assert f"p_a as calibrated by {reference}" in rlaif("show", run, "pair-3").stdout
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["settings"]["calibration"] == {"helpfulness": temperature}
    assert manifest["options"]["calibration"] == str(cal)

    found = compared(run, human)
    fit = found.objectives["helpfulness"].calibration
    assert fit.ece == pytest.approx(calibrate(expected, gold).ece, abs=1e-12)
    assert fit.ece < written["objectives"]["helpfulness"]["ece"]
    assert fit.temperature == pytest.approx(1.0, abs=1e-6)
    assert found.objectives["helpfulness"].accuracy == pytest.approx(26 / 40)

    # A second fit says what it is, and is not taken for one of the judge itself.
    again = tmp_path / "again.json"
    done = rlaif("compare", run, human, "--resamples", 0, "--calibrate", again)
    assert f"Its p_a has been calibrated already ({reference})" in " ".join(done.stdout.split())
    assert json.loads(again.read_text())["calibrated"] == reference
    with pytest.raises(InputError, match="had calibrated already"):
        package.label(**labelled, calibration=again, update=True)

    # Without it the labels are again what they were, to the byte.
    with pytest.raises(InputError, match=r'calibration: \{"helpfulness": .*\} -> null'):
        package.label(**labelled)
    assert package.label(**labelled, update=True).asked == 0
    assert (run / "labels.jsonl").read_bytes() == plain_bytes


def test_the_same_command_again_needs_no_update(labelled: dict[str, Any], tmp_path: Path) -> None:
    run, cal = labelled["out"], tmp_path / "cal.json"
    made_with = labels_of(run)[0]["provenance"]
    content = calibration(**{name: made_with[name] for name in ("judge", "template", "constitution")})
    cal.write_text(json.dumps(content))
    first = package.label(**labelled, calibration=cal, update=True)
    assert (first.asked, first.reused) == (0, 160)
    assert first.calibration is not None
    assert first.calibration.temperatures == {"helpfulness": 2.0}
    written = (run / "labels.jsonl").read_bytes()
    # Neither does a file that differs only in what decides nothing.
    cal.write_text(json.dumps({**content, "human": "moved.jsonl"}, indent=1))
    assert package.label(**labelled, calibration=str(cal)).asked == 0
    assert (run / "labels.jsonl").read_bytes() == written
    cal.write_text(json.dumps({**content, "objectives": {"honesty": {"temperature": 3, "n": 9}}}))
    with pytest.raises(InputError, match=r'calibration: \{"helpfulness": 2.0\} -> \{"honesty": 3.0\}'):
        package.label(**labelled, calibration=cal)


def test_a_calibration_of_other_labels_is_refused_before_anything_is_asked(
    stub: RunningStub, labelled: dict[str, Any], tmp_path: Path
) -> None:
    cal = tmp_path / "cal.json"
    cal.write_text(json.dumps(calibration()))
    seen, fresh = len(stub.state.bodies), {**labelled, "out": tmp_path / "fresh"}
    for options in ({**labelled, "update": True}, fresh):
        with pytest.raises(InputError, match="fitted on labels of judge j@1"):
            package.label(**options, calibration=cal)
    with pytest.raises(InputError, match="fitted on labels of judge j@1"):
        api.dry_run(**fresh, calibration=cal)
    assert not (tmp_path / "fresh").exists()
    assert len(stub.state.bodies) == seen


def test_a_run_without_it_says_nothing_of_it(labelled: dict[str, Any]) -> None:
    manifest = json.loads((labelled["out"] / "manifest.json").read_text())
    assert "calibration" not in manifest["settings"].keys() | manifest["options"].keys() | manifest["counts"].keys()
    again = package.label(**labelled)
    assert "calibration" not in json.loads(again.model_dump_json())
    assert "calibration" not in labels_of(labelled["out"])[0]["provenance"]
