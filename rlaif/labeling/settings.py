"""What a labelling run is told to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rlaif.engines.base import Cluster, EngineName
from rlaif.types import Frozen

Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class DataSettings(Frozen):
    """Where rows come from."""

    data: str
    split: str | None = None
    config: str | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)
    limit: Count | None = None


class EngineSettings(Frozen):
    """Where a model runs; `base_url` is one server or several. `args` are the engine's own options, unread.

    `replicas` and `address` (of a cluster) belong to the engine `ray`.
    """

    engine: EngineName = "auto"
    base_url: str | tuple[str, ...] | None = None
    concurrency: Count = 128
    args: Mapping[str, str] = Field(default_factory=dict)
    replicas: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    address: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def cluster(self) -> Cluster | None:
        """Where replicas run; `None` for every engine but `ray`."""
        return Cluster(replicas=self.replicas or 1, address=self.address) if self.engine == "ray" else None

    @model_validator(mode="after")
    def _on_a_cluster(self) -> EngineSettings:
        given = "replicas" if self.replicas is not None else "address" if self.address is not None else None
        if given and self.engine != "ray":
            raise ValueError(f"--{given} has a meaning only with --engine ray; add it, or drop --{given}")
        return self

    @field_validator("base_url")
    @classmethod
    def _one_is_a_text(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        # A manifest names one server as it always did.
        if isinstance(value, tuple) and len(value) < 2:
            return value[0] if value else None
        return value


class PolicySettings(Frozen):
    """The model whose responses are labelled."""

    model: str
    n: Count = 2
    temperature: Temperature = 1.0
    max_tokens: Count = 512
    seed: int = 0


class CascadeSettings(Frozen):
    """Cheap verdicts first: the stages in order, and from which confidence on an earlier one is believed.

    Each of `stages` is a template, `TEMPLATE@JUDGE`, or a judge that is asked the template of the stage before.
    `agreement` is what the accepted verdicts are to have with the last stage, or with people where `labels` names
    their labels; `sample` pairs are asked in every stage to set each threshold for it. A `threshold` is taken as it is.
    """

    stages: tuple[str, ...]
    agreement: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    sample: Count = 200
    labels: str | None = None
    threshold: Annotated[float, Field(ge=0.5, le=1)] | None = None


class LabelSettings(Frozen):
    """Everything `rlaif label` takes; see `rlaif label --help`."""

    source: DataSettings
    out: Path
    constitution: str = "hhh"
    judge: str = "starter"
    engine: EngineSettings = EngineSettings()
    template: str = "pairwise-cot"
    objectives: tuple[str, ...] = ()
    principles: Literal["all", "sample"] = "all"
    orders: Literal["both", "ab"] = "both"
    samples: Count = 1
    temperature: Temperature = 0.0
    max_tokens: Count = 512
    policy: PolicySettings | None = None
    policy_engine: EngineSettings | None = None
    seed: int = 0
    calibration: Path | None = Field(default=None, exclude_if=lambda value: value is None)
    cascade: CascadeSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    update: bool = False
    strict: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """All options as a manifest tells them."""
        return self.model_dump(mode="json", exclude={"update", "strict"})

    @field_validator("objectives")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _samples_differ(self) -> LabelSettings:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"--samples {self.samples} with --temperature 0 asks the same thing again; set a temperature"
            )
        return self

    @model_validator(mode="after")
    def _cascades(self) -> LabelSettings:
        if self.cascade is not None and self.orders == "ab":
            raise ValueError(
                "--cascade with --orders ab: whether the orders agree is not known then; drop --orders ab, or --cascade"
            )
        if self.cascade is not None and self.calibration is not None:
            raise ValueError(
                "--calibration holds for the labels of one judge and template; drop it, or label without --cascade"
            )
        return self


class ReviseSettings(Frozen):
    """Everything `rlaif revise` takes; see `rlaif revise --help`. Without a `policy` the judge writes all texts."""

    source: DataSettings
    out: Path
    constitution: str = "hhh"
    judge: str = "starter"
    engine: EngineSettings = EngineSettings()
    policy: str | None = None
    policy_engine: EngineSettings | None = None
    critique_template: str = "critique"
    revision_template: str = "revision"
    objectives: tuple[str, ...] = ()
    rounds: Count = 1
    n: Count = 1
    temperature: Temperature = 1.0
    revision_temperature: Temperature = 0.0
    max_tokens: Count = 512
    seed: int = 0
    update: bool = False

    @model_validator(mode="after")
    def _chains_differ(self) -> ReviseSettings:
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"--n {self.n} with --temperature 0 gives the same first response {self.n} times; set a temperature"
            )
        return self
