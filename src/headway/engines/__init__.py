"""Engines: one interface to every model, each in a module of its own; importing this one loads none."""

from typing import Annotated
from urllib.parse import urlsplit

from headway.choices import Option, Options
from headway.types import HeadwayError


class Connection(Options, frozen=True):
    """How to reach a server; nothing here changes what is measured. The key is in an environment variable only."""

    base_url: Annotated[str, Option("Address of the server, up to and including /v1.")] = ""
    concurrency: Annotated[int, Option("Requests in flight.", least=1)] = 32
    timeout: Annotated[float, Option("Seconds allowed for one request.", above=0)] = 600.0
    retries: Annotated[int, Option("Retries of a request, with growing pauses.", least=0)] = 8
    api_key_env: Annotated[str, Option("Environment variable that holds the key.")] = "OPENAI_API_KEY"

    def check_address(self) -> None:
        """Raises HeadwayError if the address is none, or holds a secret, which the run folder would store."""
        try:
            parts = urlsplit(self.base_url if self.base_url.isprintable() and " " not in self.base_url else "")
            (parts.hostname or "").encode("idna"), parts.port
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HeadwayError(
                f"--base-url {self.base_url[:200]!r} is no address; expected e.g. http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise HeadwayError("--base-url holds more than an address; keys go into the environment (--api-key-env)")
