"""The stages of a cascade: what `--cascade` names, resolved to templates and judges; nothing is loaded or asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.engines.base import EngineKind, ModelIdentity
from rlaif.engines.factory import resolve_model
from rlaif.errors import InputError, closest
from rlaif.labeling.kept import Placed
from rlaif.labeling.labels import ROUNDING, fold_objective, fold_ratings
from rlaif.labeling.plan import Planner
from rlaif.labeling.run import LabelRun, judge_template
from rlaif.labeling.settings import CascadeSettings, EngineSettings
from rlaif.prompts import Template
from rlaif.shipped import shipped_folder
from rlaif.starter import STARTER
from rlaif.types import ObjectiveLabel, Provenance, Verdict
from rlaif.version import __version__

_TEMPLATES = ("direct", "few-shot", "pairwise-cot", "rating")


@dataclass(frozen=True)
class Stage:
    """One stage: a template, the judge that is asked it, and where that judge runs.

    `name` stands in the labels, the manifest and the report: the template, with `@JUDGE` where one was named.
    """

    name: str
    template: Template
    judge: ModelIdentity
    kind: EngineKind
    where: EngineSettings
    planner: Planner

    @property
    def made_by(self) -> tuple[str, str]:
        """The digests that tell this stage's judgments apart in the ledger."""
        return self.template.digest, self.judge.digest

    @property
    def rated(self) -> bool:
        """Whether its verdicts are ratings of one response each."""
        return self.template.head.kind == "rating"

    @property
    def placed(self) -> Placed:
        """Its judge, and where that runs."""
        return Placed(self.kind, self.judge, self.where)

    def fold(self, verdicts: Sequence[Verdict]) -> ObjectiveLabel:
        """Fold the verdicts of one pair and objective."""
        folded = (fold_ratings if self.rated else fold_objective)(verdicts)
        return folded.model_copy(update={"stage": self.name})

    def confidence(self, label: ObjectiveLabel) -> float | None:
        """The probability of the response that a label prefers; `None` where it is not to be believed.

        That is where it prefers none, where an order was not read, and where the orders prefer different responses:
        `p_a` is then no further from one half than half of the order gap. Ratings are of one response each, and have
        no order.
        """
        if label.p_a is None or label.preference == "tie":
            return None
        if not self.rated and (label.order_gap is None or not orders_agree(label.p_a, label.order_gap)):
            return None
        return max(label.p_a, 1 - label.p_a)


def orders_agree(p_a: float, order_gap: float) -> bool:
    """Whether both orders prefer the same response: 0.8 with a gap of 0.2 is 0.9 and 0.7; 0.6 with 0.4 is 0.8 and 0.4.

    An order that is a tie prefers none.
    """
    return abs(p_a - 0.5) > order_gap / 2 + ROUNDING


def resolve_stages(run: LabelRun, cascade: CascadeSettings) -> tuple[Stage, ...]:
    """Resolve what `--cascade` names: files read, names checked, judges fingerprinted.

    Raises:
        InputError: a name is neither a template nor a judge, a judge cannot be used, or two stages are the same.
        RunError: a server does not answer.
    """
    if len(cascade.stages) < 2:
        given = ",".join(cascade.stages)
        raise InputError(
            f"--cascade {given}: needs two stages or more, the cheap one first, as --cascade direct,pairwise-cot."
        )
    settings = run.settings
    judges: dict[str, tuple[EngineKind, ModelIdentity, EngineSettings]] = {}
    stages: list[Stage] = []
    template = settings.template
    for given in cascade.stages:
        named, judge = split_stage(given, server=bool(settings.engine.base_url))
        template = named or template
        asked = judge or settings.judge
        if asked not in judges:
            judges[asked] = _resolve_judge(asked, settings.engine, given, known=named is not None)
        kind, model, where = judges[asked]
        loaded = judge_template(template)
        name = Path(template).stem + (f"@{model.name}" if judge else "")
        stages.append(Stage(name, loaded, model, kind, where, run.planner(model, loaded)))
    _refuse_alike(stages)
    if settings.samples > 1 and not any(stage.template.head.rationale for stage in stages):
        raise InputError(f"--samples {settings.samples}: no stage of --cascade has a rationale, so all are the same.")
    return tuple(stages)


def split_stage(given: str, *, server: bool) -> tuple[str | None, str | None]:
    """Tell the template and the judge of a stage apart: `TEMPLATE`, `TEMPLATE@JUDGE` or `JUDGE`.

    Args:
        server: whether a server is asked, which may serve a model under any name.

    Raises:
        InputError: it is none of them.
    """
    if _is_template(given):
        return given, None
    template, at, judge = given.partition("@")
    if at and _is_template(template) and judge:
        return template, judge
    # Of a server any name may be a model's; the empty path is a folder, and no name.
    if given and (_is_url(given) or given == STARTER or "/" in given or Path(given).is_dir() or (server and not at)):
        return None, given
    known = ", ".join(_TEMPLATES)
    close = closest(template, _TEMPLATES)
    hint = f" Did you mean {close}?" if close else ""
    raise InputError(
        f"--cascade {given or '(empty)'}: neither a template ({known}, or a file) nor a judge (starter, a hub id as "
        f"owner/name, a model folder, or a server's URL), nor TEMPLATE@JUDGE.{hint}"
    )


def cascade_digest(stages: Sequence[Stage]) -> str:
    """What stands for all stages together: their templates and judges, in order."""
    return hashlib.sha256("\x00".join(part for stage in stages for part in stage.made_by).encode()).hexdigest()


def cascade_provenance(run: LabelRun, stages: Sequence[Stage]) -> Provenance:
    """What labels of a cascade say that they were made with: all judges and stages, under one digest.

    So a calibration that was fitted on labels of one stage does not pass for one of the cascade's, nor the other way.
    """
    digest = cascade_digest(stages)[:12]
    judges = dict.fromkeys(stage.judge for stage in stages)
    digests = "\x00".join(judge.digest for judge in judges)
    combined = hashlib.sha256(digests.encode()).hexdigest() if len(judges) > 1 else digests
    return Provenance(
        judge=f"{','.join(judge.name for judge in judges)}@{combined[:12]}",
        constitution=run.constitution.reference,
        template=f"{','.join(stage.name for stage in stages)}@{digest}",
        rlaif=__version__,
    )


def described(stages: Sequence[Stage]) -> list[Mapping[str, str]]:
    """What each stage is, for the manifest."""
    return [
        {
            "name": stage.name,
            "template": stage.template.digest,
            "judge": stage.judge.name,
            "judge_digest": stage.judge.digest,
            "engine": stage.kind,
        }
        for stage in stages
    ]


def _is_template(name: str) -> bool:
    return Path(name).is_file() or name.endswith(".j2") or (shipped_folder("prompts") / f"{name}.j2").is_file()


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _resolve_judge(
    judge: str, engine: EngineSettings, given: str, *, known: bool
) -> tuple[EngineKind, ModelIdentity, EngineSettings]:
    """Fingerprint a judge; one that is a URL is whatever that server serves.

    Args:
        given: the stage as it was given.
        known: whether its template is named, so that the rest can only be a judge.
    """
    if _is_url(judge):
        engine = engine.model_copy(update={"engine": "server", "base_url": judge})
        judge = STARTER
    try:
        kind, model = resolve_model(judge, engine.engine, engine.base_url, engine.args, option="--cascade")
    except InputError as error:
        if engine.base_url:
            what = "" if known else f"not a template ({', '.join(_TEMPLATES)}, or a file), and "
            fix = "A judge on another server is given by its address, as TEMPLATE@http://HOST:PORT."
            raise InputError(f"--cascade {given}: {what}{error} {fix}") from None
        raise
    return kind, model, engine


def _refuse_alike(stages: Sequence[Stage]) -> None:
    seen: dict[tuple[str, str], str] = {}
    names: set[str] = set()
    for stage in stages:
        if stage.made_by in seen:
            raise InputError(
                f"--cascade: the stages {seen[stage.made_by]} and {stage.name} ask the same judge the same template; "
                "drop one of them."
            )
        if stage.name in names:
            raise InputError(f"--cascade: two stages are called {stage.name}; give one of the files another name.")
        seen[stage.made_by] = stage.name
        names.add(stage.name)
