"""Engines: one interface to every model. Each is in a module of its own; importing this one loads none."""

from typing import NamedTuple
from urllib.parse import urlsplit

from headway.types import HeadwayError


class Connection(NamedTuple):
    """How to reach a server and how to treat it: nothing here changes what is measured.

    `timeout` is in seconds, for one try; `retries` follow it with growing pauses. The key is read from the environment
    variable `api_key_env` and from nowhere else.
    """

    base_url: str
    concurrency: int = 32
    timeout: float = 600.0
    retries: int = 8
    api_key_env: str = "OPENAI_API_KEY"

    def check(self) -> None:
        """Refuses an address that is none, and one that holds a secret: the run folder would keep it.

        Raises:
            HeadwayError: which, and what is expected.
        """
        try:
            parts = urlsplit(self.base_url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HeadwayError(f"--base-url '{self.base_url}' is no address; expected e.g. http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise HeadwayError("--base-url holds more than an address; keys go into the environment (--api-key-env)")
        if self.concurrency < 1 or self.retries < 0 or not self.timeout > 0:
            raise HeadwayError(
                "need --concurrency >= 1, --retries >= 0 and --timeout > 0, got "
                f"{self.concurrency}, {self.retries} and {self.timeout:g}"
            )
