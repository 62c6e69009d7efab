"""What cpro tells itself through Centrifugo and through clients: texts that only holders of the secret can make.

A seal is not encrypted: it proves, it doesn't hide. `purpose` keeps seals of different kinds apart.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import Final

import msgspec

_PROOF_BYTES: Final = 16
_PROOF_CHARS: Final = 22


class Seal:
    """Makes and opens sealed lists of texts. `secret` must be the same on all nodes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seal) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self._secret)

    def close(self, purpose: str, *texts: str) -> str:
        """A sealed text of URL-safe characters."""
        content = urlsafe_b64encode(msgspec.json.encode(texts)).rstrip(b"=")
        return (self._proof(purpose, content) + content).decode()

    def open(self, purpose: str, sealed: str) -> list[str] | None:
        """The texts, or None where this is no seal of ours."""
        raw = sealed.encode(errors="replace")
        proof, content = raw[:_PROOF_CHARS], raw[_PROOF_CHARS:]
        if not hmac.compare_digest(proof, self._proof(purpose, content)):
            return None
        try:
            return msgspec.json.decode(urlsafe_b64decode(content + b"=" * (-len(content) % 4)), type=list[str])
        except (Error, msgspec.DecodeError):  # another version's
            return None

    def _proof(self, purpose: str, content: bytes) -> bytes:
        digest = hmac.new(self._secret, purpose.encode() + b"\0" + content, hashlib.sha256).digest()
        return urlsafe_b64encode(digest[:_PROOF_BYTES]).rstrip(b"=")
