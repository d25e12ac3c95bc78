"""Who may connect: anybody on this machine, or whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from pathlib import Path

from diffusion_policy.common.config import ConfigError

VARIABLE = "BAC_SERVE_TOKEN"
SHORTEST, LONGEST = 16, 1024  # characters of a token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may mean anything
        return False


def token_for(host: str, token_file: str | None) -> str | None:
    """The token of `token_file`, or else of the environment; None where there is none and none is needed.

    Raises:
        ConfigError: it is missing though `host` can be reached from elsewhere, too short, or readable by others.
    """
    token, source = _from_file(token_file) if token_file is not None else (os.environ.get(VARIABLE), VARIABLE)
    if token is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"host={host} can be reached from other machines, so clients need a token: put one into the environment "
            f"variable {VARIABLE} or into a file, token_file=..., or use host=127.0.0.1"
        )
    if not SHORTEST <= len(token) <= LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token in {source} has to be {SHORTEST} to {LONGEST:,} ASCII letters, digits or signs without spaces: "
            "make one with python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def _from_file(name: str) -> tuple[str, str]:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"other users may read the token in {path}: chmod 600 {path}")
            text = file.read(4 * LONGEST)
    except OSError as error:
        raise ConfigError(f"token_file={name} cannot be read: {error.strerror}") from error
    return text.decode("utf-8", "replace").strip(), str(path)


def is_authorised(header: str | None, token: str | None) -> bool:
    """Whether an Authorization header carries the token, as openpi's clients (Api-Key) or Prometheus (Bearer) send it.

    The time that it takes does not tell how much of a wrong token is right.
    """
    if token is None:
        return True
    scheme, _, given = (header or "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return right and scheme.lower() in ("api-key", "bearer")
