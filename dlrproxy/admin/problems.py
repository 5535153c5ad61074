"""What the API answers when it cannot serve a request."""

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """The JSON of such an answer: something that a person can act on."""

    error: str


class RequestError(Exception):
    """The request cannot be served; the text is for whoever sent it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
