"""Whose connection token is it? Read without a key it is only a claim, until Centrifugo has accepted the token.

With keys (Centrifugo's `client.token` block) it is verified here, so that the user can be charged before Centrifugo is
asked. A token that fails here is no verdict: it becomes a mere claim, and what it is worth is Centrifugo's to say.
"""

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from cpro.config.model import Token
from cpro.doors.gateway.keysets import ECDSA, RSA, Key

_HMAC: Final = ("HS256", "HS384", "HS512")

FindKey = Callable[[str, Mapping[str, str]], Key | None]
"""`KeySets.find`."""


def no_key(name: str, variables: Mapping[str, str]) -> Key | None:
    """The `FindKey` that knows none."""
    return None


class Claim(NamedTuple):
    """The user a token names; `is_verified`: its signature and times are right."""

    user: str
    is_verified: bool


class Tokens:
    """Reads connection tokens."""

    def __init__(self, settings: Token, read_pem: Callable[[str], bytes], find_key: FindKey = no_key) -> None:
        """`read_pem` turns a key's setting into PEM, `find_key` knows those of `jwks_public_endpoint`."""
        self._settings = settings
        self._claim = settings.user_id_claim or "sub"
        self._find_key = find_key
        hmac = [key for key in (settings.hmac_secret_key, settings.hmac_previous_secret_key) if key]
        self._candidates = [Key(key, _HMAC) for key in hmac]
        for pem, algorithms in ((settings.rsa_public_key, RSA), (settings.ecdsa_public_key, ECDSA)):
            if pem:
                self._candidates.append(Key(read_pem(pem), algorithms))
        self._verifies = bool(self._candidates or settings.jwks_public_endpoint)
        self._audience = re.compile(settings.audience_regex) if settings.audience_regex else None
        self._issuer = re.compile(settings.issuer_regex) if settings.issuer_regex else None

    def read(self, token: str) -> Claim | None:
        """Whom `token` names; None when it can't be read, so that Centrifugo will not accept it either."""
        claims = _unverified(token)
        if claims is None:
            return None
        verified = self._verify(token, claims) if self._verifies else None
        user = _as_user((claims if verified is None else verified).get(self._claim, ""))
        return None if user is None else Claim(user, verified is not None)

    def _verify(self, token: str, unverified: dict[str, Any]) -> dict[str, Any] | None:
        import jwt  # a gateway without keys does without it

        variables = self._variables(unverified)
        if variables is None:
            return None
        for key, algorithms in self._candidates or self._published(token, variables):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, algorithms=list(algorithms), options={"verify_aud": False, "verify_sub": False}
                )
            except jwt.PyJWTError:
                continue
            return claims if self._is_for_us(claims) else None
        return None

    def _published(self, token: str, variables: Mapping[str, str]) -> list[Key]:
        import jwt

        try:
            name = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError:
            return []
        key = self._find_key(name, variables)
        return [] if key is None else [key]

    def _variables(self, claims: dict[str, Any]) -> dict[str, str] | None:
        """What the named groups of the patterns say of a token; None if one doesn't match. What may be believed of it
        is the key's to prove that they lead to."""
        found: dict[str, str] = {}
        for pattern, values in ((self._issuer, [claims.get("iss", "")]), (self._audience, _audiences(claims))):
            if pattern is None:
                continue
            matches = (pattern.search(value) for value in values if isinstance(value, str))
            match = next(filter(None, matches), None)
            if match is None:
                return None
            found |= {name: value for name, value in match.groupdict().items() if value}
        return found

    def _is_for_us(self, claims: dict[str, Any]) -> bool:
        wanted = self._settings
        return (not wanted.audience or wanted.audience in _audiences(claims)) and (
            not wanted.issuer or claims.get("iss", "") == wanted.issuer
        )


def _audiences(claims: dict[str, Any]) -> list[Any]:
    audience = claims.get("aud", ())
    return list(audience) if isinstance(audience, list | tuple) else [audience]


def _unverified(token: str) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        content = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(content)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _as_user(value: object) -> str | None:
    """A claim's scalar as Centrifugo writes it; None for what can't be a user's id."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None
