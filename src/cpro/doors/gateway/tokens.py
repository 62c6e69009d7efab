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

_HMAC: Final = ("HS256", "HS384", "HS512")
_RSA: Final = ("RS256", "RS384", "RS512")
_ECDSA: Final = ("ES256", "ES384", "ES512")
_PUBLIC: Final = (*_RSA, *_ECDSA, "EdDSA")

Keys = Mapping[str, Any]
"""Keys of a JSON Web Key Set by their `kid`, as PyJWT takes them."""


class Claim(NamedTuple):
    """The user a token names; `is_verified`: its signature and times are right."""

    user: str
    is_verified: bool


class Tokens:
    """Reads connection tokens."""

    def __init__(self, settings: Token, read_pem: Callable[[str], bytes], keys: Callable[[], Keys] = dict) -> None:
        """`read_pem` turns a key's setting into PEM, `keys` are those of `jwks_public_endpoint` known now."""
        self._settings = settings
        self._claim = settings.user_id_claim or "sub"
        self._keys = keys
        hmac = [key for key in (settings.hmac_secret_key, settings.hmac_previous_secret_key) if key]
        self._candidates: list[tuple[Any, tuple[str, ...]]] = [(key, _HMAC) for key in hmac]
        for pem, algorithms in ((settings.rsa_public_key, _RSA), (settings.ecdsa_public_key, _ECDSA)):
            if pem:
                self._candidates.append((read_pem(pem), algorithms))
        self._verifies = bool(self._candidates or settings.jwks_public_endpoint)

    def read(self, token: str) -> Claim | None:
        """Whom `token` names; None when it can't be read, so that Centrifugo will not accept it either."""
        claims = _unverified(token)
        if claims is None:
            return None
        verified = self._verify(token) if self._verifies else None
        user = _as_user((claims if verified is None else verified).get(self._claim, ""))
        return None if user is None else Claim(user, verified is not None)

    def _verify(self, token: str) -> dict[str, Any] | None:
        import jwt  # a gateway without keys does without it

        for key, algorithms in self._candidates or self._published(token):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, algorithms=list(algorithms), options={"verify_aud": False, "verify_sub": False}
                )
            except jwt.PyJWTError:
                continue
            return claims if self._is_for_us(claims) else None
        return None

    def _published(self, token: str) -> list[tuple[Any, tuple[str, ...]]]:
        import jwt

        try:
            name = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError:
            return []
        key = self._keys().get(name)
        return [] if key is None else [(key, _PUBLIC)]

    def _is_for_us(self, claims: dict[str, Any]) -> bool:
        wanted, issuer = self._settings, claims.get("iss", "")
        audience = claims.get("aud", ())
        audiences = [audience] if isinstance(audience, str) else list(audience)
        return (
            (not wanted.audience or wanted.audience in audiences)
            and (not wanted.audience_regex or any(re.search(wanted.audience_regex, one) for one in audiences))
            and (not wanted.issuer or issuer == wanted.issuer)
            and (not wanted.issuer_regex or re.search(wanted.issuer_regex, issuer) is not None)
        )


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
