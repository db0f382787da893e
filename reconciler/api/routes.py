"""The API's routes, made of the one list of calls: a request becomes an ask, an answer a response, an error a problem.

Runs on the server's event loop; what a call does runs in a thread of the pool. No decision is made here.
"""

import asyncio
import contextvars
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.api import frames
from reconciler.api.answers import Opener, answer
from reconciler.api.asks import CALLS, Ask, Call, Cancel, Get
from reconciler.api.problem import MEDIA_TYPE, BadRequest, describe_error, map_error
from reconciler.api.pump import MOST_LINE
from reconciler.api.sessions import Exec, Session
from reconciler.api.streams import Stream
from reconciler.api.tables import render_tables
from reconciler.api.text import RAW_ASKS, RAW_TYPE, TEXT_TYPE, RawText, Reader, read_reader
from reconciler.model.errors import ReconcileError
from reconciler.verbs.audit import acting_as

MOST_BODY = 32 << 20
"""Bytes of a request's body."""
BODY_SECONDS = 30.0
"""Within which it must have come."""
MOST_AT_WORK = 32
"""Requests that are worked on at once; one more is told to come again."""
MOST_SESSIONS = 64
"""The same of those with streams, which may last for days."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""
HOSTS = frozenset({"reconcile", "localhost"})

Endpoint = Callable[[Request], Awaitable[Response]]


class Workers(ThreadPoolExecutor):
    """Threads for requests, of which no more are taken at once than there are."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self._free = most

    def take(self) -> None:
        """Take one, on the event loop. Raises BadRequest where there is none."""
        if not self._free:
            raise BadRequest(503, "too many requests are worked on just now", "try again in a moment")
        self._free -= 1

    def give(self) -> None:
        """It is free again."""
        self._free += 1


class Api:
    """What the routes share."""

    def __init__(
        self, opened: Opener, *, ready: Callable[[], bool] = lambda: True, metrics: Callable[[], bytes] | None = None
    ) -> None:
        self.opened = opened
        self.ready = ready
        self.metrics = metrics
        """What Prometheus reads, where somebody renders it."""
        self.running: dict[str, Stream] = {}
        """By what their `Reconcile-Call` said."""
        self.pool = Workers(MOST_AT_WORK, "api")
        self.sessions = Workers(MOST_SESSIONS, "session")

    def app(self, *more: Route) -> Starlette:
        """The ASGI application; `more` are routes of others, which come first."""
        routes = [
            *more,
            Route("/healthz", _guarded(self._healthz), methods=["GET"]),
            Route("/readyz", _guarded(self._readyz), methods=["GET"]),
            Route("/metrics", _guarded(self._metrics), methods=["GET"]),
            Route("/v1/openapi.json", _guarded(self._openapi), methods=["GET"]),
            *(Route(f"/v1{call.path}", _guarded(self._endpoint(call)), methods=[call.method]) for call in CALLS),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    def cancel_all(self) -> None:
        """Have all that runs end at its next action. From any thread."""
        for stream in list(self.running.values()):
            stream.cancel()

    # --- what is always there ---

    async def _healthz(self, request: Request) -> Response:  # noqa: ARG002 as all endpoints
        return _json({"status": "ok"})

    async def _readyz(self, request: Request) -> Response:  # noqa: ARG002
        ready = self.ready()
        return _json({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002
        if self.metrics is None:
            raise BadRequest(404, "nobody renders metrics here")
        text = await asyncio.get_running_loop().run_in_executor(self.pool, self.metrics)
        return Response(text, media_type=METRICS_TYPE)

    async def _openapi(self, request: Request) -> Response:  # noqa: ARG002
        from reconciler.api.openapi import render_document

        return _json(render_document())

    # --- calls ---

    def _endpoint(self, call: Call) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            ask = await (_read_session if issubclass(call.ask, Session) else _read_ask)(call, request)
            if isinstance(ask, Cancel):
                return self._cancel(ask)
            return await self._work(call, ask, request)

        return endpoint

    def _cancel(self, ask: Cancel) -> Response:
        found = self.running.get(ask.call)
        if found is not None:
            found.cancel()
        return _json({"found": found is not None})

    async def _work(self, call: Call, ask: Ask, request: Request) -> Response:
        workers = self.sessions if isinstance(ask, Session) else self.pool
        workers.take()
        request.state.line.working = True
        stream = Stream(ask, asyncio.get_running_loop())
        name = request.headers.get("reconcile-call") or f"{id(stream)}"
        self.running[name] = stream
        who, line = read_who(request), request.state.line

        def run() -> Any:
            with acting_as(who, uid=line.uid, pid=line.pid):
                return answer(self.opened, ask, stream.listener)

        def done(future: asyncio.Future[Any]) -> None:
            workers.give()
            self.running.pop(name, None)
            if stream.pump is not None:
                stream.pump.close()
            stream.end(future)

        future = asyncio.get_running_loop().run_in_executor(workers, contextvars.Context().run, run)
        future.add_done_callback(done)
        if not call.streams:
            found = await _mapped(future)
            if isinstance(ask, Get) and _accepts(request, TEXT_TYPE):
                return _render_text(found, request)
            return _json(found)
        watcher = asyncio.ensure_future(_watch(stream, request))
        try:
            if not await stream.begun():
                await _mapped(future)  # It failed before it told anything.
        except BaseException:
            watcher.cancel()
            raise
        return Frames(stream, watcher, *_choose_form(ask, request))


async def _mapped(future: "asyncio.Future[Any]") -> Any:
    """Its result. Raises ReconcileError, for whatever it raised."""
    try:
        return await future
    except ReconcileError:
        raise
    except Exception as error:
        raise map_error(error) from error


class Frames(Response):
    """A stream's frames as they come."""

    def __init__(
        self,
        stream: Stream,
        watcher: "asyncio.Future[None]",
        media_type: str,
        render: Callable[[frames.AnyFrame], bytes],
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self._stream = stream
        self._watcher = watcher
        self._render = render

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 as all responses
        """Send until the stream ends or nobody reads any more."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for batch in self._stream.batches():
                body = b"".join(self._render(frame) for frame in batch)
                if body:  # Much of what is told is nothing in the form of some.
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._watcher.cancel()
            self._stream.leave()


async def _watch(stream: Stream, request: Request) -> None:
    """See whether somebody is there, and pass on what he sends."""
    rest = getattr(request.state, "rest", None)  # None where the body was all of one call.
    if stream.pump is not None and not await stream.pump.feed(request.receive, rest):
        return stream.leave()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stream.leave()


def _render_line(frame: frames.AnyFrame) -> bytes:
    return frames.encode(frame) + b"\n"


def _render_sse(frame: frames.AnyFrame) -> bytes:
    """As the living standard of HTML has it; the id of a recorded event is where to resume."""
    head = b"id: %d\n" % frame.id if isinstance(frame, frames.Item) and frame.id else b""
    return head + b"data: " + frames.encode(frame) + b"\n\n"


def _choose_form(ask: Ask, request: Request) -> tuple[str, Callable[[frames.AnyFrame], bytes]]:
    """Server-sent events or text, where they are asked for; else a line of JSON each."""
    if _accepts(request, "text/event-stream"):
        return "text/event-stream", _render_sse
    if isinstance(ask, RAW_ASKS) and _accepts(request, RAW_TYPE):
        return RAW_TYPE, RawText(_read_reader(request), of_command=isinstance(ask, Exec))
    return "application/jsonl", _render_line


def _render_text(found: Any, request: Request) -> Response:
    lines = render_tables(found, _read_reader(request).look)
    return Response("".join(f"{line}\n" for line in lines), media_type=TEXT_TYPE)


def _accepts(request: Request, media_type: str) -> bool:
    return media_type in request.headers.get("accept", "")


def _read_reader(request: Request) -> Reader:
    return read_reader(request.headers.get("reconcile-terminal", ""))


def _json(data: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status, media_type="application/json")


def render_problem(error: ReconcileError) -> Response:
    """An error as a response."""
    problem = describe_error(error)
    return Response(msgspec.json.encode(problem), problem.status, media_type=MEDIA_TYPE)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = "not found" if error.status_code == 404 else error.detail.lower()
    found = render_problem(BadRequest(error.status_code, f"{request.method} {request.url.path[:200]}: {words}"))
    found.headers.update(error.headers or {})
    return found


def _guarded(endpoint: Endpoint) -> Endpoint:
    """An endpoint that no web page can reach, and whose errors are problems."""

    async def guarded(request: Request) -> Response:
        try:
            _check_caller(request)
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except ReconcileError as error:
            return render_problem(error)
        except Exception as error:  # noqa: BLE001 a mistake of ours is told, and ends no server
            return render_problem(map_error(error))

    return guarded


def _check_caller(request: Request) -> None:
    """F1: a browser sends an Origin, and a name that was made to lead here is not ours."""
    host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    if host not in HOSTS:
        raise BadRequest(403, f"Host {host[:100]!r} is not ours", f"send one of {', '.join(sorted(HOSTS))}")
    if "origin" in request.headers:
        raise BadRequest(403, "requests of web pages are refused", "leave the header Origin out")


# --- requests ---


async def _read_session(call: Call, request: Request) -> Ask:
    """The first line of the body; what follows goes to its streams. A body that is only that may be application/json."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await _read_body(request)
    elif kind == "application/jsonl":
        body, request.state.rest = await _read_line(request)
    else:
        raise BadRequest(415, "the body is neither application/jsonl nor application/json", "send a Content-Type")
    try:
        return msgspec.json.decode(body, type=call.ask)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(400, f"the body does not fit: {error}") from error


async def _read_line(request: Request) -> tuple[bytes, bytes]:
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while b"\n" not in body and len(body) <= MOST_LINE:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise BadRequest(408, f"the body did not come within {BODY_SECONDS:g} s") from None
    if len(body) > MOST_LINE:
        raise BadRequest(413, f"the line has more than {MOST_LINE >> 20} MiB")
    line, _, rest = body.partition(b"\n")
    return line, rest


async def _read_ask(call: Call, request: Request) -> Ask:
    if call.method == "GET":
        return read_query(call, request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest(415, "the body is not application/json", "send Content-Type: application/json")
    body = await _read_body(request)
    try:
        return msgspec.json.decode(body, type=call.ask)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(400, f"the body does not fit: {error}") from error


async def _read_body(request: Request) -> bytes:
    """F3: the whole of it or an error; what was cut off is never looked at."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY:
                    raise BadRequest(413, f"the body has more than {MOST_BODY >> 20} MiB")
    except TimeoutError:
        raise BadRequest(408, f"the body did not come within {BODY_SECONDS:g} s") from None
    return bytes(body)


def read_query(call: Call, request: Request) -> Ask:
    """The fields of an ask from the query. Raises BadRequest."""
    hints = {field.name: field for field in msgspec.structs.fields(call.ask)}
    found: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in hints:
            raise BadRequest(
                400, f"{name[:100]!r} is no parameter of {call.name}", f"there are {', '.join(hints) or 'none'}"
            )
        if hints[name].type == tuple[str, ...]:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise BadRequest(400, f"{name} is given twice")
        else:
            found[name] = value
    if (last := request.headers.get("last-event-id")) and "after" in hints:
        found["after"] = last
    try:
        return msgspec.convert(found, call.ask, strict=False)
    except msgspec.MsgspecError as error:
        raise BadRequest(400, f"the query does not fit: {error}") from error


_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\Z", re.IGNORECASE)


def read_who(request: Request) -> str:
    """Who asks: by the kernel's word for the socket. Only root may say for whom he does."""
    uid = request.state.line.uid
    user = request.headers.get("reconcile-sudo-user", "")
    if uid == 0 and _NAME.match(user):
        return user
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"
