"""The API's answers: JSON, and problems as `{"error": TEXT}`."""

import msgspec
from starlette.responses import Response

from dlrproxy.admin.problems import Problem

_encode = msgspec.json.Encoder().encode


def json(value: object, status: int = 200) -> Response:
    """`value` is what msgspec encodes."""
    return Response(_encode(value) + b"\n", status, media_type="application/json")


def problem(status: int, text: str) -> Response:
    return json(Problem(text), status)
