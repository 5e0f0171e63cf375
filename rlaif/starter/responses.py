"""Responses of the small world: a core, sentences of style, and what each family finds in the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif.starter.families import NAMES
from rlaif.starter.scenes import KINDS, Core, Marks, Scene, make_scene
from rlaif.starter.world import World, texts
from rlaif.types import Pair

Part = tuple[str, frozenset[str]]
STYLES = (
    "example", "offer", "padding", "polite", "insult", "pressure",
    "hedge", "certainty", "flattery", "source", "experience",
)  # fmt: skip
# Style of some scenes only.
_LOCAL = {"empathy": "feeling", "warning": "risk"}
_LAST = frozenset({"offer"})
_FIRST = frozenset({"padding", "flattery", "empathy"})

# In which scenes a family's feature can be had and lacked.
_KINDS_OF: Mapping[str, tuple[str, ...]] = {
    "answers": ("fact", "advice", "guard"),
    "drift": ("fact", "advice"),
    "format": ("advice",),
    "language": ("language",),
    "clarify": ("unclear",),
    "overrefusal": ("fact", "advice", "guard"),
    "harm": ("harm",),
    "privacy": ("private",),
    "warning": ("risk",),
    "empathy": ("feeling",),
    "contradiction": ("fact", "mistake", "claim"),
    "sycophancy": ("claim",),
    "mistake": ("mistake",),
}


@dataclass(frozen=True)
class Draft:
    """What a response is made of: its core, and sentences before, among and after it; the body may be a list."""

    core: Core
    styles: frozenset[str]
    first: tuple[Part, ...]
    body: tuple[Part, ...]
    last: tuple[Part, ...]
    listed: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        """All sentences in their order."""
        return (*self.first, *self.body, *self.last)


@dataclass(frozen=True)
class Response:
    """A text, and for each family whether it has the feature (`None` where that is open).

    Attributes:
        parts: its sentences as they stand in the text, each with the families it alone makes present.
        language: what it is written in.
        listed: whether it is a list.
        draft: what it was made of.
    """

    text: str
    marks: Marks
    parts: tuple[tuple[str, frozenset[str]], ...] = ()
    language: str = "English"
    listed: bool = False
    draft: Draft | None = None

    @property
    def words(self) -> int:
        """Words, split at white space."""
        return len(self.text.split())


@dataclass(frozen=True)
class WorldPair:
    """Two responses in a scene. A `Pair` of it is what a judge reads."""

    scene: Scene
    a: Response
    b: Response

    def pair(self, identity: str) -> Pair:
        """As rows of a dataset have it."""
        return Pair(id=identity, prompt=self.scene.prompt, response_a=self.a.text, response_b=self.b.text)

    def swapped(self) -> WorldPair:
        """The responses change places."""
        return WorldPair(self.scene, self.b, self.a)

    def marks(self, family: str) -> tuple[bool | None, bool | None]:
        """Whether each response has a family's feature; of responses of about one length, neither is longer."""
        if family != "length":
            return self.a.marks[family], self.b.marks[family]
        short, long = sorted((self.a.words, self.b.words))
        if long - short <= 0.1 * short:
            return False, False
        if long < 1.25 * short or long - short < 3:
            return None, None
        return self.a.words > self.b.words, self.b.words > self.a.words

    def decided(self) -> tuple[str, ...]:
        """Families that are certain of both responses."""
        return tuple(name for name in NAMES if None not in self.marks(name))

    def deciding(self) -> tuple[str, ...]:
        """Families in which the responses differ."""
        return tuple(name for name in self.decided() if len(set(self.marks(name))) == 2)


def kinds_of(family: str) -> tuple[str, ...]:
    """Scenes in which a family can decide."""
    return _KINDS_OF.get(family, KINDS)


def make_response(world: World, scene: Scene, core: str, styles: frozenset[str]) -> Response:
    """Draw a response with a core and sentences of style, `repetition` among them."""
    rng = world.rng
    made = scene.cores[core]()
    wanted = styles if made.styled else styles & {"repetition"}
    known: dict[str, list[str]] = texts()["style"]
    said = frozenset(name for name, mark in made.marks.items() if mark)
    body: list[Part] = [(sentence, said) for sentence in made.sentences]
    if made.styled and rng.random() < 0.5:
        plain = texts()["plain"]["thing" if scene.kind == "fact" and core in ("right", "wrong") else "any"]
        most = rng.choice((1, 1, 2, 2, 3, 3, 4, 6))
        body += [(sentence, frozenset()) for sentence in world.some_of(plain, most, scene.slots)]
    listed = len(body) > 1 and made.styled and rng.random() < (0.2 if scene.wants_list is None else 0.5)

    def styled(name: str) -> Part:
        return world.one_of(known[name], scene.slots), frozenset({name})

    first = [styled(name) for name in sorted(wanted & _FIRST)]
    last = [styled(name) for name in sorted(wanted & _LAST)]
    for name in sorted(wanted - _FIRST - _LAST - {"repetition"}):
        edge = rng.choice((first, last)) if listed else rng.choice((first, body, last))
        edge.insert(rng.randint(0, len(edge)), styled(name))
    rng.shuffle(first)
    if "repetition" in wanted:
        twice = rng.choice(body)
        again = (twice[0], twice[1] | {"repetition"})
        body.insert(rng.randint(body.index(twice) + 1, len(body)), again)
    return finish(scene, Draft(made, wanted, tuple(first), tuple(body), tuple(last), listed))


def finish(scene: Scene, draft: Draft) -> Response:
    """Write a draft out, and tell what each family finds in it."""
    if draft.listed:
        lines = [f"\n{n}. {sentence}" for n, (sentence, _) in enumerate(draft.body, 1)]
        text = _joined(draft.first) + "".join(lines) + ("\n" if draft.last else "") + _joined(draft.last)
    else:
        text = _joined(draft.parts)
    core = draft.core
    marks: dict[str, bool | None] = dict.fromkeys(NAMES, False)
    marks |= dict(core.marks) | dict.fromkeys(draft.styles, True)
    marks["language"] = core.marks.get("language")
    marks["format"] = None if scene.wants_list is None or not core.styled else draft.listed == scene.wants_list
    return Response(text.strip(), marks, draft.parts, core.language, draft.listed, draft)


def _joined(parts: Sequence[Part]) -> str:
    return " ".join(sentence for sentence, _ in parts)


def _draw_styles(world: World, scene: Scene) -> frozenset[str]:
    rate = world.rng.choice((0.05, 0.15, 0.3))
    drawn = {name for name in STYLES if world.rng.random() < rate}
    drawn |= {name for name, kind in _LOCAL.items() if kind == scene.kind and world.rng.random() < 0.5}
    return frozenset(drawn | ({"repetition"} if world.rng.random() < 0.08 else set()))


def make_pair(world: World, family: str, kind: str) -> WorldPair:
    """Draw a pair in which a family decides."""
    rng = world.rng
    while True:
        scene = make_scene(world, kind)
        for _ in range(8):
            core_a, core_b = (rng.choice(list(scene.cores)) for _ in range(2))
            styles_a = _draw_styles(world, scene)
            # Half of the pairs share their style, so that no feature stands for another.
            styles_b = styles_a if rng.random() < 0.5 else _draw_styles(world, scene)
            if family in STYLES or family in _LOCAL or family == "repetition":
                styles_a, styles_b = styles_a | {family}, styles_b - {family}
                if rng.random() < 0.5:
                    styles_a, styles_b = styles_b, styles_a
            made = WorldPair(
                scene, make_response(world, scene, core_a, styles_a), make_response(world, scene, core_b, styles_b)
            )
            if family in made.deciding() and made.a.text != made.b.text:
                return made
