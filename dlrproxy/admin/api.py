"""The routes of the HTTP API. What they answer with is in view.py (status), lookup.py and parked.py.

    GET  /status                                          everything about this node
    GET  /health                                          200 while it serves; else 503 and why not
    GET  /metrics                                         for Prometheus
    GET  /lookup?id=&operator=                            what an id means here
    GET  /parked?operator=&reason=&owner=&kind=&destination=&id=&since=&until=&after=&limit=
    GET  /parked/KEY
    POST /parked/replay   {"keys": [...] or "filter": {...}, "all": false, "after": "", "limit": 1000, "until": 0,
                           "to": ...}
    POST /parked/drop     the same without "to"
    POST /drain           {"mode": "custody" or "stop"}
    POST /undrain         {}
    POST /promote         {"force": false}                of a pair: take over, as soon as it is safe
    POST /demote          {}                              of a pair: hand over
    POST /look            {}                              of a quorum: look at the database server at once

What is about the store is answered 503 by a node that does not serve now, and so are POST /drain but for "stop", and
POST /undrain.

Answers are JSON, problems {"error": TEXT}. A POST must say that its body is application/json (access.py says why), and
every name that is not known is refused: a mistyped criterion would take more than was meant.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.typing import FilteringBoundLogger

from dlrproxy.admin.answers import json, problem
from dlrproxy.admin.lookup import Finder
from dlrproxy.admin.metrics import CONTENT_TYPE, Metrics
from dlrproxy.admin.parked import DEFAULT_LIMIT, Bulk, Filter, Parked, Replay, check_limit, id_bytes, key_bytes
from dlrproxy.admin.problems import RequestError
from dlrproxy.admin.view import Drain, DrainState, NodeView
from dlrproxy.store.port import StoreError
from ring.rows import RowError

MAX_BODY: Final = 256 * 1024  # bytes: a thousand keys take 40 KiB

T = TypeVar("T")
Serve = Callable[[Request], Awaitable[Response]]


class DrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Drain


class UndrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class PromoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    force: bool = False


class DemoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LookRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Health(msgspec.Struct, frozen=True):
    node: str
    serving: bool
    why_not: tuple[str, ...]


class _Selection(Filter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of GET /parked."""

    after: str = ""
    limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limit(self.limit)


class _LookupQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    operator: str = ""


class _NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Api:
    """One node's API: a Starlette application in `app`, and POST /look alone in `look_app`."""

    def __init__(self, view: NodeView, log: FilteringBoundLogger, *, full_numbers: bool) -> None:
        self._view = view
        self._log = log
        self._parked = Parked(view, log, full_numbers=full_numbers)
        self._finder = Finder(view, self._parked, full_numbers=full_numbers)
        self._metrics = Metrics(view.status)
        self.app = Starlette(
            routes=[
                self._route("GET", "/status", self._status),
                self._route("GET", "/health", self._health),
                self._route("GET", "/metrics", self._scrape),
                self._route("GET", "/lookup", self._serving(self._lookup)),
                self._route("GET", "/parked", self._serving(self._list)),
                self._route("GET", "/parked/{key}", self._serving(self._show)),
                self._route("POST", "/parked/replay", self._serving(self._replay)),
                self._route("POST", "/parked/drop", self._serving(self._drop)),
                self._route("POST", "/drain", self._drain),
                self._route("POST", "/undrain", self._serving(self._undrain)),
                self._route("POST", "/promote", self._promote),
                self._route("POST", "/demote", self._demote),
                self._route("POST", "/look", self._look),
            ],
            exception_handlers={HTTPException: _http_problem},
        )
        self.look_app = Starlette(
            routes=[self._route("POST", "/look", self._look_silently)],
            exception_handlers={HTTPException: _http_problem},
        )

    def _route(self, method: str, path: str, serve: Serve) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await serve(request)
            except RequestError as error:
                return problem(error.status, str(error))
            except ClientDisconnect:
                return Response(status_code=400)  # nobody gets it
            except (StoreError, RowError) as error:
                self._log.error("admin.store_failed", path=request.url.path, error=str(error))
                return problem(503, str(error))

        return Route(path, endpoint, methods=[method])

    def _serving(self, serve: Serve) -> Serve:
        """The same, and refused while the node does not serve."""

        async def checked(request: Request) -> Response:
            self._check_service()
            return await serve(request)

        return checked

    def _check_service(self) -> None:
        """Raises RequestError."""
        if why_not := self._view.why_no_service():
            raise RequestError(503, why_not)

    async def _status(self, request: Request) -> Response:
        _query(request, _NoQuery)
        return json(self._view.status())

    async def _health(self, request: Request) -> Response:
        _query(request, _NoQuery)
        status = self._view.status()
        why_not = status.why_not_serving
        return json(Health(status.node, not why_not, why_not), 503 if why_not else 200)

    async def _scrape(self, _: Request) -> Response:
        # Prometheus may be told to add parameters of its own.
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _lookup(self, request: Request) -> Response:
        query = _query(request, _LookupQuery)
        message_id = id_bytes(query.id)
        if not message_id:
            raise RequestError(400, "id: must not be empty")
        status = self._view.status()
        operators = [operator for operator in status.operators if query.operator in ("", operator.name)]
        if not operators:
            names = ", ".join(operator.name for operator in status.operators)
            raise RequestError(404, f"operator: this node has no {query.operator}; it has {names or 'none'}")
        return json(await self._finder.find(operators, message_id, status.now, status.node))

    async def _list(self, request: Request) -> Response:
        query = _query(request, _Selection)
        return json(await self._parked.page(query, key_bytes(query.after), query.limit))

    async def _show(self, request: Request) -> Response:
        _query(request, _NoQuery)
        return json(await self._parked.detail(key_bytes(request.path_params["key"])))

    async def _replay(self, request: Request) -> Response:
        return json(await self._parked.replay(await _body(request, Replay)))

    async def _drop(self, request: Request) -> Response:
        return json(await self._parked.drop(await _body(request, Bulk)))

    async def _drain(self, request: Request) -> Response:
        wanted = await _body(request, DrainRequest)
        if wanted.mode != "stop":
            self._check_service()
        self._log.info("admin.drain", mode=wanted.mode)
        self._view.drain(wanted.mode)
        return json(DrainState.of(self._view.status()), 202)

    async def _undrain(self, request: Request) -> Response:
        await _body(request, UndrainRequest)
        self._log.info("admin.undrain")
        if not self._view.undrain():
            raise RequestError(409, "the node is stopping; start it again")
        return json(DrainState.of(self._view.status()), 202)

    async def _promote(self, request: Request) -> Response:
        wanted = await _body(request, PromoteRequest)
        return self._asked_of_pair(self._view.promote(force=wanted.force))

    async def _demote(self, request: Request) -> Response:
        await _body(request, DemoteRequest)
        return self._asked_of_pair(self._view.demote())

    async def _look(self, request: Request) -> Response:
        await _body(request, LookRequest)
        taken, status = self._view.look(), self._view.status()
        if not taken:
            raise RequestError(409, f"the mode is {status.mode}: only a node of a quorum is told to look")
        return json(status.quorum, 202)

    async def _look_silently(self, request: Request) -> Response:
        """For who need not know what the node shows."""
        await self._look(request)
        return Response(status_code=204)

    def _asked_of_pair(self, taken: bool) -> Response:
        status = self._view.status()
        if not taken:
            raise RequestError(409, f"the mode is {status.mode}: only a node of a pair is promoted or demoted")
        return json(status.pair, 202)


def _query(request: Request, wanted: type[T]) -> T:
    """Raises RequestError for a parameter that is not known, given twice or not of its type."""
    given: Mapping[str, str] = request.query_params
    if len(given) != len(request.query_params.multi_items()):
        raise RequestError(400, "a parameter is given twice")
    try:
        return msgspec.convert(dict(given), wanted, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(400, str(error)) from error


async def _body(request: Request, wanted: type[T]) -> T:
    """Raises RequestError."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(415, "the body must be of Content-Type application/json")
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise RequestError(413, f"the body is larger than {MAX_BODY} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=wanted)
    except msgspec.MsgspecError as error:
        raise RequestError(400, str(error)) from error
    except UnicodeDecodeError as error:
        raise RequestError(400, "the body is not UTF-8") from error


async def _http_problem(_: Request, error: Exception) -> Response:
    """What Starlette refuses: an unknown path, another method."""
    if not isinstance(error, HTTPException):
        raise error
    response = problem(error.status_code, error.detail or HTTPStatus(error.status_code).phrase)
    response.headers.update(error.headers or {})
    return response
