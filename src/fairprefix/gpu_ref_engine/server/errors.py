"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

from starlette.responses import JSONResponse

from fairprefix.core.errors import FairprefixError

BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_LARGE, TOO_MANY = 400, 401, 404, 413, 429
SERVER_ERROR, UNAVAILABLE, CLIENT_GONE = 500, 503, 499
_TYPES = {
    UNAUTHORIZED: "authentication_error",
    TOO_MANY: "rate_limit_error",
    SERVER_ERROR: "server_error",
    UNAVAILABLE: "service_unavailable_error",
}
_RETRY_AFTER_S = "1"


class ApiError(FairprefixError):
    """A request is refused.

    Args:
        status: HTTP's status code.
        message: what is wrong, and what would be right.
        code: the same for programs.
        param: the field of the request, if one is to blame.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> dict[str, object]:
        """Return the error as OpenAI writes it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the error as a response."""
        headers = {"Retry-After": _RETRY_AFTER_S} if self.status in (TOO_MANY, UNAVAILABLE) else None
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


def invalid(param: str, value: object, valid: str) -> ApiError:
    """Return the error for a field whose value is not valid."""
    shown = repr(value)
    if len(shown) > 80:  # noqa: PLR2004 (a value may be a whole prompt)
        shown = f"{shown[:77]}..."
    return ApiError(
        BAD_REQUEST, f"{param} = {shown} is not valid: expected {valid}", param=param, code="invalid_value"
    )
