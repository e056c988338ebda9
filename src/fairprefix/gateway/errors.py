"""Errors as OpenAI's clients expect them, each with a code for programs and a reason for people."""

from __future__ import annotations

import orjson

from fairprefix.core.errors import FairprefixError

BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_LARGE, TOO_MANY = 400, 401, 404, 413, 429
SERVER_ERROR, BAD_GATEWAY, UNAVAILABLE, TIMEOUT = 500, 502, 503, 504
_TYPES = {
    UNAUTHORIZED: "authentication_error",
    TOO_MANY: "rate_limit_error",
    SERVER_ERROR: "server_error",
    BAD_GATEWAY: "upstream_error",
    UNAVAILABLE: "service_unavailable_error",
    TIMEOUT: "timeout_error",
}
_DROPPED = b"x-llm-d-request-dropped-reason"
_RETRY_AFTER_S = b"1"

Headers = list[tuple[bytes, bytes]]


class GatewayError(FairprefixError):
    """A request ends here.

    Args:
        status: HTTP's status code.
        code: why, for programs.
        message: what is wrong, and what would be right.
        param: the field of the request, if one is to blame.
    """

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> bytes:
        """Return the error as OpenAI writes it, in JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def headers(self) -> Headers:
        """Return the headers of the response."""
        headers = [(b"content-type", b"application/json")]
        if self.status in (TOO_MANY, UNAVAILABLE, TIMEOUT):
            headers += [(b"retry-after", _RETRY_AFTER_S), (_DROPPED, self.code.encode())]
        return headers

    def event(self) -> bytes:
        """Return the error as the last event of a stream that has begun already."""
        return b"data: " + self.body() + b"\n\n"


def no_worker() -> GatewayError:
    """Return the error for a request that no worker can take."""
    return GatewayError(UNAVAILABLE, "no_worker", "no worker is alive: try again later")
