"""The settings of a server."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from pengi.config import Frozen

MEGABYTE = 1_000_000
FIELDS_BYTES = 1_000_000
"""Maximum size of a request besides its recording, in bytes: questions, labels, form or JSON syntax."""
MIN_KEY_CHARACTERS = 8
"""Shortest API key."""
OWN_PATHS = ("/v1", "/page", "/gradio_api", "/assets", "/static", "/docs")
"""A root path that begins with one of these could not be distinguished from the server's own addresses."""


class ServingSettings(Frozen):
    """The address of a server and what it accepts. The defaults serve one person on their own machine."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0 takes any free one")
    api_key: SecretStr | None = Field(None, description="key that every request must carry; no key is needed if None")
    allow_origins: tuple[str, ...] = Field(
        (), description="origins of web pages that may call the server from a browser; '*' stands for all"
    )
    root_path: str = Field("", description="path under which a reverse proxy shows the server, such as '/pengi'")
    max_upload_mb: float = Field(25.0, gt=0, le=1000, description="largest upload, in millions of bytes")
    max_seconds: float = Field(600.0, gt=0, le=36_000, description="longest recording, in seconds")
    max_requests: int = Field(64, ge=1, le=10_000, description="maximum number of requests at a time")
    batch_size: int = Field(8, ge=1, le=64, description="maximum number of recordings in the model at a time")
    gather_s: float = Field(0.005, ge=0, le=1, description="how long a request waits for others to share a call with")
    timeout_s: float = Field(120.0, gt=0, le=3600, description="longest time from first byte to answer, in seconds")
    page: bool = Field(True, description="show the page for people at /")
    index: Path | None = Field(None, description="a collection that the page searches")

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        value = "" if key is None else key.get_secret_value()
        if key is not None and len(value) < MIN_KEY_CHARACTERS:
            raise ValueError(f"the key is shorter than {MIN_KEY_CHARACTERS} characters")
        if not re.fullmatch(r"[ -~]*", value) or value != value.strip():
            raise ValueError(
                "the key may have ASCII letters, digits, punctuation and blanks, but no blank or line break at its ends"
            )
        return key

    @field_validator("allow_origins")
    @classmethod
    def _origins_as_browsers_send_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(origin.strip().lower().removesuffix("/") for origin in origins)
        for origin in found:
            if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/*?#@\s]+", origin):
                raise ValueError(
                    f"'{origin}' is not an origin; give scheme, host and port, such as https://app.example.org, or '*'"
                )
        return found

    @field_validator("root_path")
    @classmethod
    def _root_path_is_a_path(cls, path: str) -> str:
        path = f"/{path.strip('/')}" if path.strip("/") else ""
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", path):
            raise ValueError("give the path alone, such as /pengi, of letters, digits and - . _ ~")
        if path.startswith(OWN_PATHS) and f"/{path.split('/')[1]}" in OWN_PATHS:
            raise ValueError(f"'{path}' begins like the server's own addresses; choose another path")
        return path

    @property
    def upload_bytes(self) -> int:
        """Largest recording, in bytes."""
        return round(self.max_upload_mb * MEGABYTE)

    @property
    def form_bytes(self) -> int:
        """Largest body of a multipart request, in bytes."""
        return self.upload_bytes + FIELDS_BYTES

    @property
    def json_bytes(self) -> int:
        """Largest body of a JSON request, in bytes; base64 encodes three bytes as four characters."""
        return -(-self.upload_bytes // 3) * 4 + FIELDS_BYTES

    @property
    def held_bytes(self) -> int:
        """Maximum size of all bodies in memory, in bytes; further requests get status 429."""
        return 8 * self.json_bytes

    @property
    def held_seconds(self) -> float:
        """Maximum length of the decoded audio in memory, in seconds; 64 kB a second at 16 kHz."""
        return max(3600.0, 2 * self.max_seconds)
