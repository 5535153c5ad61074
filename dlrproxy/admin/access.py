"""Who may use the API over TCP: who knows the token; without one, programs of this machine, but no web page.

A page that a browser on this machine shows can make it send requests to loopback. It cannot send a body of type
application/json to another origin unasked (`api.py` wants that of every POST); and one that has its own name resolve
to loopback, to become the same origin, is known by that name in the Host header.
"""

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dlrproxy.admin.answers import problem
from dlrproxy.secret import Secret

_BEARER = "bearer "


class TokenRequired:
    """Lets nothing through that does not carry `Authorization: Bearer TOKEN`."""

    def __init__(self, app: ASGIApp, token: Secret) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._carries_it(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        response = problem(401, "this needs the header Authorization: Bearer, with the token of admin.token_file")
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _carries_it(self, headers: Headers) -> bool:
        given = headers.get("authorization", "")
        if given[: len(_BEARER)].lower() != _BEARER:
            return False
        # Starlette decodes headers as latin-1.
        return hmac.compare_digest(given[len(_BEARER) :].strip().encode("latin-1"), self._token.reveal())


class NoForeignHost:
    """Lets nothing through that was addressed to a name; localhost and addresses are no web site's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_own(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        await problem(403, "without a token, only localhost or an address is taken as Host")(scope, receive, send)


def _is_own(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
