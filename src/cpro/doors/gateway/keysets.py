"""Keys that sign connection tokens, published as JSON Web Key Sets (RFC 7517) and kept for a while, as Centrifugo does.

Nobody waits for them: a token whose key isn't here yet is a mere claim, and asking for the key has it fetched. Who
names keys that don't exist has a set fetched once in a while, and no more often for asking more; where the endpoint is
a template, only so many sets are known at a time.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from cpro.config.checks import TEMPLATE_VARIABLE
from cpro.logs import Occasional

log = logging.getLogger(__name__)

RSA: Final = ("RS256", "RS384", "RS512")
ECDSA: Final = ("ES256", "ES384", "ES512")
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": RSA, "EC": ECDSA, "OKP": ("EdDSA",)}
"""By `kty`. A symmetric key that is published is nobody's secret."""
_SECOND_NS: Final = 10**9
FRESH_NS: Final = 1800 * _SECOND_NS
"""Older sets are fetched again when somebody asks …"""
KEPT_NS: Final = 3600 * _SECOND_NS
"""… and after as long as Centrifugo keeps its own, a set that can't be had again is good for nothing."""
AGAIN_NS: Final = 10 * _SECOND_NS
"""A set is fetched no more often, whatever for."""
MOST_SETS: Final = 100
MOST_KEYS: Final = 1000
_PLAIN: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._~-]{1,128}")
"""What may become a part of a URL's path."""


class Key(NamedTuple):
    """As PyJWT takes it, and the algorithms it may be used with."""

    key: Any
    algorithms: tuple[str, ...]


Fetch = Callable[[str, Callable[[bytes | None], object]], object]
"""Fetches a URL; then says its content, or None."""


class KeySets:
    """Those of one endpoint, a URL that may have variables in its path: `https://id/{{realm}}/certs`."""

    def __init__(self, endpoint: str, fetch: Fetch, clock: Callable[[], int]) -> None:
        """`clock` is `clock.boot_ns`."""
        self._endpoint = endpoint
        self._fetch = fetch
        self._clock = clock
        self._sets: dict[str, _Set] = {}
        self._occasional = Occasional(log)
        if not TEMPLATE_VARIABLE.search(endpoint):
            self._look_up(endpoint, "")  # so that the first tokens find it here

    def find(self, name: str, variables: Mapping[str, str]) -> Key | None:
        """The key with this `kid`, of the set that a token's variables lead to; None where it isn't known now."""
        url = self._url(variables)
        return self._look_up(url, name) if url and name else None

    def _url(self, variables: Mapping[str, str]) -> str:
        """Empty where a variable is missing, or would be more than a part of the path."""
        names = TEMPLATE_VARIABLE.findall(self._endpoint)
        if not all(_PLAIN.fullmatch(variables.get(name, "")) for name in names):
            return ""
        return TEMPLATE_VARIABLE.sub(lambda match: variables[match[1]], self._endpoint)

    def _look_up(self, url: str, name: str) -> Key | None:
        now_ns = self._clock()
        known = self._sets.get(url)
        if known is None:
            if not self._has_room(now_ns):
                return None
            known = self._sets[url] = _Set()
        key = known.keys.get(name) if now_ns < known.fetched_ns + KEPT_NS else None
        if (key is None or now_ns >= known.fetched_ns + FRESH_NS) and now_ns >= known.again_ns and not known.is_asked:
            known.is_asked, known.again_ns = True, now_ns + AGAIN_NS
            self._fetch(url, lambda content: self._on_content(url, known, content))
        return key

    def _has_room(self, now_ns: int) -> bool:
        """Let one go that leads to nothing, if need be."""
        if len(self._sets) < MOST_SETS:
            return True
        over_ns = now_ns - KEPT_NS
        useless = (
            url
            for url, one in self._sets.items()
            if one.fetched_ns <= over_ns and one.again_ns <= now_ns and not one.is_asked
        )
        return self._sets.pop(next(useless, ""), None) is not None

    def _on_content(self, url: str, asked: "_Set", content: bytes | None) -> None:
        asked.is_asked = False
        keys = None if content is None else read_keys(content)
        if keys is None:
            self._occasional.warning("keys", "keys of tokens can't be had", url=url)
            return
        asked.keys, asked.fetched_ns = keys, self._clock()


class _Set:
    """One set, as far as it is known."""

    __slots__ = ("again_ns", "fetched_ns", "is_asked", "keys")

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.fetched_ns = -KEPT_NS
        self.again_ns = 0
        """When it may be fetched again."""
        self.is_asked = False


class _Published(msgspec.Struct, gc=False):
    keys: list[dict[str, Any]]


_decode: Final = msgspec.json.Decoder(_Published).decode


def read_keys(content: bytes) -> dict[str, Key] | None:
    """The keys of a set that sign, by `kid`; None for what is no set. Keys that can't be used are left out."""
    try:
        published = _decode(content).keys[:MOST_KEYS]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = ((one.get("kid"), _read_key(one)) for one in published if one.get("use") == "sig")
    return {name: key for name, key in found if isinstance(name, str) and name and key is not None}


def _read_key(published: dict[str, Any]) -> Key | None:
    import jwt  # a gateway without keys does without it

    kind, algorithm = published.get("kty"), published.get("alg")
    algorithms = _ALGORITHMS.get(kind, ()) if isinstance(kind, str) else ()
    if isinstance(algorithm, str) and kind != "OKP":  # as Centrifugo has it
        algorithms = tuple(one for one in algorithms if one == algorithm)
    if not algorithms:
        return None
    try:
        return Key(jwt.PyJWK(published, algorithms[0]).key, algorithms)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):  # whatever a publisher may get wrong
        return None
