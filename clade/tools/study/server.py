"""``clade study serve``: the study as a small web site."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from clade.errors import CladeError, first_line
from clade.tools.study.answers import AnsweredOtherwise, Answers, UnknownParticipant, UnknownQuestion
from clade.tools.study.page import content_policy, page
from clade.tools.study.study import ANSWERS, PICTURES, PUBLIC, read_study, screens_to_json

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as error:
    raise CladeError(
        f'`clade study serve` needs FastAPI and uvicorn ({error}). Install them: pip install "clade-synthesis[study]".'
    ) from error

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint

LARGEST_BODY = 4096
_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
_DAY = 86_400_000


class Answer(BaseModel):
    """What a browser sends; ``ms`` is the time from when the pictures stood there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: Annotated[str, Field(min_length=1, max_length=64)]
    side: Literal["left", "right"]
    ms: Annotated[int, Field(ge=0, le=_DAY)]


def create_app(folder: str | Path) -> FastAPI:
    """The application for a study's folder.

    Raises:
        DataError: no finished study there, or answers to another one.
    """
    folder = Path(folder)
    study = read_study(folder)
    answers = Answers(folder / ANSWERS, study)
    text = page(study)
    policy = content_policy(text)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.get("/")
    def index() -> Response:
        return Response(text, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})

    @app.get("/pictures/{name}")
    def picture(name: str) -> Response:
        if name not in study.pictures:
            raise HTTPException(404, "There is no such picture.")
        content = (folder / PUBLIC / PICTURES / name).read_bytes()
        lasting = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(content, media_type=_TYPES[Path(name).suffix], headers=lasting)

    @app.get("/api/session")
    def session(request: Request) -> dict[str, Any]:
        return _state(answers, _token(request))

    @app.post("/api/session", status_code=201)
    def begin(request: Request) -> dict[str, Any]:
        with contextlib.suppress(HTTPException):  # who takes part already goes on
            token = _token(request)
            return {"token": token, **_state(answers, token)}
        token = answers.begin()
        return {"token": token, **_state(answers, token)}

    @app.post("/api/answers")
    async def answer(request: Request) -> dict[str, Any]:
        token = _token(request)
        try:
            given = Answer.model_validate_json(await _body(request))
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, wrong["loc"])) or "the answer"
            raise HTTPException(422, f"{where}: {wrong['msg']}.") from error
        return await run_in_threadpool(_keep, answers, token, given)

    return app


def _state(answers: Answers, token: str) -> dict[str, Any]:
    try:
        now = answers.session(token)
    except UnknownParticipant as error:
        raise HTTPException(401, str(error)) from error
    return {"total": now.total, "done": now.done, "screens": screens_to_json(now.screens)}


def _keep(answers: Answers, token: str, given: Answer) -> dict[str, Any]:
    try:
        answers.answer(token, given.question, given.side, given.ms)
    except UnknownParticipant as error:
        raise HTTPException(401, str(error)) from error
    except UnknownQuestion as error:
        raise HTTPException(404, str(error)) from error
    except AnsweredOtherwise as error:
        raise HTTPException(409, str(error)) from error
    return {"saved": True}


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise HTTPException(401, "Begin first: there is no participant's token with this request.")
    return token


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"An answer has at most {LARGEST_BODY} bytes.")
    return body


def serve(folder: str | Path, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a study until Ctrl-C; port 0 takes a free one. Prints the address.

    Raises:
        CladeError: an address that cannot be listened on.
        DataError: as :func:`create_app`.
    """
    app = create_app(folder)
    study = read_study(folder)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with _listening(host, port) as listener:
        shown, number = listener.getsockname()[:2]
        shown = f"[{shown}]" if ":" in shown else shown
        print(f"{len(study.questions)} questions at http://{shown}:{number} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    print(_count(Answers(Path(folder) / ANSWERS, study)))


def _count(answers: Answers) -> str:
    return f"{answers.participants()} participants and {len(answers.rows())} answers in {answers.path}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise CladeError(
            f"{host}:{port} cannot be listened on ({first_line(error)}). Choose another --host or --port."
        ) from error
