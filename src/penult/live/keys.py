"""Keys: what a browser needs to be let in by the live page's server."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Keys:
    """What a browser needs to be let in.

    Attributes:
        port: that the server listens on.
        host: address that the server listens on, as the user names it.
        token: a secret of this server; a new one each time.
    """

    port: int
    host: str = "127.0.0.1"
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie: cookies do not tell ports apart."""
        return f"penult-{self.port}"

    def fits(self, token: str) -> bool:
        """Whether a token is this server's."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def is_own(self, host: str) -> bool:
        """Whether the `Host` of a request is this server, and not a name that leads to it.

        A page of another site can make its own name lead here (DNS rebinding); its name then
        stands in the request. Numbers are no names.
        """
        try:
            found = urlsplit(f"//{host}")
            name, port = (found.hostname or "").lower(), found.port
        except ValueError:
            return False
        if port != self.port and not (port is None and self.port == 80):
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
