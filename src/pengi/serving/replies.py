"""Errors as HTTP: a status and a JSON body in the form that OpenAI's clients read.

{"error": {"message": "...", "type": "invalid_request_error", "param": null, "code": "unreadable_audio"}}
"""

from __future__ import annotations

import http
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pengi.errors import AudioError, InputError, PengiError
from pengi.serving.inference_worker import BusyError, ClosingError, DeadlineError

INVALID = "invalid_request_error"
RETRY_LATER_S = 5
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {400: "bad_request", 405: "method_not_allowed"}
_UNPARSED = "There was an error parsing the body"
"""FastAPI's message for a body that it cannot parse, if the reason is not invalid JSON."""


class RefusalError(HTTPException):
    """A refused request; ``message`` is one sentence for the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        # A message may contain line breaks, or half of a surrogate pair, which UTF-8 cannot encode.
        self.message = " ".join(message.encode("utf-8", "replace").decode().split())
        super().__init__(status, self.message, headers)
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kind = _TYPES.get(self.status_code, INVALID if self.status_code < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def reply(self) -> JSONResponse:
        """The response to send."""
        return JSONResponse(self.body, self.status_code, self.headers)


def internal_error() -> RefusalError:
    """The reply to an internal error."""
    # The traceback goes to the log. After this reply the server raises the error again and closes the connection, which
    # the header tells the client before its next request.
    message, headers = "internal error; see the server's log", {"Connection": "close"}
    return RefusalError(500, message, code="internal_error", headers=headers)


def not_found(method: str) -> RefusalError:
    """The refusal of an address that does not exist."""
    return RefusalError(404, f"there is no {method} at this address; see /docs for the addresses", code="not_found")


def refusal(error: PengiError) -> RefusalError:
    """The HTTP error for an error of the package."""
    match error:
        case BusyError():
            return RefusalError(429, str(error), code="busy", headers={"Retry-After": str(error.retry_after_s)})
        case ClosingError():
            return RefusalError(503, str(error), code="shutting_down", headers={"Retry-After": str(RETRY_LATER_S)})
        case DeadlineError():
            return RefusalError(504, str(error), code="timeout")
        case AudioError():
            return RefusalError(422, str(error), code="unreadable_audio")
        case InputError():
            return RefusalError(400, str(error), code="bad_input")
        case _:
            return RefusalError(400, str(error), code="bad_request")


def install(app: FastAPI) -> None:
    """Let ``app`` answer every error with a reply of this module."""

    @app.exception_handler(RefusalError)
    async def _refused(_request: Request, error: RefusalError) -> JSONResponse:
        return error.reply()

    @app.exception_handler(PengiError)
    async def _user_error(_request: Request, error: PengiError) -> JSONResponse:
        return refusal(error).reply()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _first_invalid_field(error).reply()

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return not_found(request.method).reply()
        if error.status_code == 405:
            message = f"{request.method} does not work at this address; see /docs for the methods that do"
        elif error.detail == _UNPARSED:
            message = (
                "the body cannot be parsed: it is not UTF-8, is nested too deeply or has a number that is too long"
            )
        else:
            detail = str(error.detail or http.HTTPStatus(error.status_code).phrase)
            message = f"{detail[:1].lower()}{detail[1:]}".rstrip(".")
        code = _CODES.get(error.status_code, "error")
        return RefusalError(error.status_code, message, code=code, headers=dict(error.headers or {})).reply()

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return internal_error().reply()


_NOT_AN_OBJECT = ("model_attributes_type", "model_type", "dict_type")


def _first_invalid_field(error: RequestValidationError) -> RefusalError:
    found: dict[str, Any] = error.errors()[0]
    path = _path(found["loc"])
    message = "must be a JSON object" if found["type"] in _NOT_AN_OBJECT else found["msg"].removeprefix("Value error, ")
    if found["type"] == "json_invalid":
        return RefusalError(400, f"the body is not valid JSON: {found['ctx']['error']}", code="invalid_json")
    if found["type"] == "missing":
        return RefusalError(400, f"'{path or 'body'}' is missing", code="missing_field", param=path or None)
    return RefusalError(
        400, f"'{path or 'body'}': {message[:1].lower()}{message[1:]}", code="invalid_field", param=path or None
    )


def _path(location: tuple[str | int, ...]) -> str:
    """The path of a wrong field in the body, without the kind of a part, which pydantic puts after the part's index."""
    inside = location[1:] if location[:1] == ("body",) else location
    return ".".join(str(key) for index, key in enumerate(inside) if index < 2 or inside[index - 2] != "content")
