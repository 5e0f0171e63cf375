"""What the page asks of the server: who labels, the next question, an answer, an undo."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from rlaif.errors import RlaifError
from rlaif.review.guard import Door, Guard
from rlaif.review.markdown import Shown, shown
from rlaif.review.queue import Choice
from rlaif.review.store import Answer, Progress, Question, Study
from rlaif.types import Frozen

PAGE = Path(__file__).parent / "page"
_ASSETS = ("page.css", "page.js", "view.js", "saving.js", "icon.svg")
_LONGEST_NOTE = 5000


def _storable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that do not print")
    return text


def _whole(text: str) -> str:
    # Half a surrogate pair cannot be stored, and NUL ends a text in many programs.
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80), AfterValidator(_storable)]


class AnswerBody(Frozen):
    """What the page sends for an answer; `seconds` is the time for which the question was in sight."""

    annotator: Name
    pair: Annotated[str, StringConstraints(pattern="^[0-9a-f]{24}$")]
    objective: Annotated[str, StringConstraints(max_length=64)]
    choice: Choice
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=_LONGEST_NOTE), AfterValidator(_whole)] = (
        ""
    )
    seconds: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    nonce: Annotated[str, StringConstraints(pattern="^[0-9A-Za-z-]{16,64}$")]


class UndoBody(Frozen):
    """What the page sends to take an answer back; `last` is the number of that answer."""

    annotator: Name
    last: Annotated[int, Field(ge=0, lt=2**53)]


class AnnotatorBody(Frozen):
    """A person's name."""

    annotator: Name


@dataclass(frozen=True)
class Asked:
    """What is asked about a pair: the question, and what to go by when answering it."""

    question: str
    principles: tuple[str, ...] = ()


class NotWelcome(Exception):
    """The request has no session."""


def make_app(
    study: Study,
    door: Door,
    asked: Mapping[str, Asked],
    *,
    port: int,
    annotator: str | None,
    labels: str,
    changed: Callable[[], None],
    fault: Callable[[], str | None],
) -> Guard:
    """Make the application.

    Args:
        annotator: the person's name where it is given, else the page asks for it.
        labels: name of the file that answers are exported to, as the page tells it.
        changed: called after an answer was saved or taken back.
        fault: says what is wrong with the export, if anything is.
    """

    def state(name: str, progress: Progress, *, conflict: bool = False) -> Response:
        question = progress.question
        return _json(
            {
                "annotator": name,
                "answered": progress.answered,
                "skipped": progress.skipped,
                "total": progress.total,
                "last": progress.last,
                "fault": fault(),
                "question": None if question is None else _question(study, question, asked),
            },
            409 if conflict else 200,
        )

    def named(given: str) -> str:
        # Where the command names the person, answers under another name are a mistake.
        if annotator is not None and given != annotator:
            raise ValueError(f"this page is {annotator}'s")
        return given

    def page(request: Request) -> Response:
        token, secret = request.query_params.get("token"), None
        prefetch = "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", ""))
        # A token is good once, so a browser that only looks ahead does not get to spend it.
        if token and request.method == "GET" and not prefetch:
            secret = door.exchange(token)
        if secret is None and not door.admits(request.cookies.get(door.cookie)):
            return FileResponse(PAGE / "closed.html", 401, media_type="text/html")
        # The page itself and no redirect: after a link from another site the new cookie would not come along.
        response = FileResponse(PAGE / "page.html", media_type="text/html")
        if secret is not None:
            kept = f"{door.cookie}={secret}; Path=/; Max-Age={door.max_age}; HttpOnly; SameSite=Strict"
            response.headers.append("set-cookie", kept)
        return response

    def asset(request: Request) -> Response:
        return FileResponse(PAGE / Path(request.url.path).name)

    def session(request: Request) -> Response:
        return _json(
            {
                "study": study.id,
                "annotator": annotator,
                "annotators": study.annotators(),
                "pairs": study.pairs,
                "objectives": list(asked),
                "labels": labels,
            }
        )

    def next_question(request: Request) -> Response:
        name = named(AnnotatorBody(annotator=request.query_params.get("annotator", "")).annotator)
        return state(name, study.progress(name))

    def answer(body: bytes) -> Response:
        given = AnswerBody.model_validate_json(body)
        values = given.model_dump(exclude={"pair", "annotator", "seconds"})
        seconds = None if given.seconds is None else math.floor(given.seconds * 10 + 0.5) / 10
        name = named(given.annotator)
        kept = study.answer(Answer(**values, annotator=name, key=given.pair, seconds=seconds))
        changed()
        return state(name, study.progress(name), conflict=not kept)

    def undo(body: bytes) -> Response:
        given = UndoBody.model_validate_json(body)
        progress = study.undo(named(given.annotator), given.last)
        changed()
        return state(given.annotator, progress)

    def reopen(body: bytes) -> Response:
        name = named(AnnotatorBody.model_validate_json(body).annotator)
        return state(name, study.reopen(name))

    def private(work: Callable[[Any], Response], *, posted: bool) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            if not await run_in_threadpool(door.admits, request.cookies.get(door.cookie)):
                return _json({"error": "no session; open the address that the terminal shows"}, 401)
            try:
                # In a thread: saving waits for the disk.
                return await run_in_threadpool(work, await request.body() if posted else request)
            except ValidationError as errors:
                first = errors.errors()[0]
                return _json({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)
            except ValueError as error:
                return _json({"error": str(error)}, 422)
            except KeyError:
                return _json({"error": "this pair is not in the data now; reload the page"}, 404)
            except RlaifError as error:
                return _json({"error": str(error)}, 500)

        return handle

    routes = [Route("/", page), *(Route(f"/{name}", asset) for name in _ASSETS)]
    routes += [Route("/api/session", private(session, posted=False))]
    routes += [Route("/api/question", private(next_question, posted=False))]
    for name, work in (("answer", answer), ("undo", undo), ("reopen", reopen)):
        routes.append(Route(f"/api/{name}", private(work, posted=True), methods=["POST"]))
    return Guard(Starlette(routes=routes), port)


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _question(study: Study, question: Question, asked: Mapping[str, Asked]) -> dict[str, Any]:
    """What the page shows: texts and places, and nothing that tells which response is a or who wrote it."""
    pair = question.pair if question.first == "a" else question.pair.swap()
    mine = asked[question.objective]
    number, objective = divmod(question.number, len(study.objectives))
    return {
        "pair": question.key,
        "number": number + 1,
        "of": study.pairs,
        "objective": question.objective,
        "objective_number": objective + 1,
        "objectives": len(study.objectives),
        "ask": mine.question,
        "principles": mine.principles,
        "prompt": [{"role": turn.role, **_shown(turn.content)} for turn in pair.prompt],
        "left": _shown(pair.response_a),
        "right": _shown(pair.response_b),
        "before": question.before and {"choice": question.before[0], "note": question.before[1]},
    }


def _shown(text: str) -> dict[str, Any]:
    ready: Shown = shown(text)
    return {"raw": ready.raw, "html": ready.html, "hidden": list(ready.hidden)}
