"""What clients of a stream send comes in requests of its own, `POST /emulation`, at any worker of any node.

The reply to a connect names session and node, and the SDK says both with each post. The gateway seals into the node
who has the session: the service and its worker, where other nodes reach that service, and which node it was for
Centrifugo. So a post finds its way without any state shared, and only to where a seal of ours says.
"""

import json
from collections.abc import Sequence
from json import JSONDecoder
from typing import Final, NamedTuple

from cpro._fast.emulation import build_emulation, parse_emulation
from cpro.doors.seal import Seal

PATH: Final = b"/emulation"
OCTETS: Final = b"application/octet-stream"
"""Content type of a post in Protobuf; any other is JSON."""
_NODE: Final = "node"  # purpose of the seal
_FIELDS: Final = ("session", "node", "data")


class Owner(NamedTuple):
    """Of a session: its service (an id that each start makes anew), which worker of that, the address where other nodes
    reach the service (empty: they don't), and Centrifugo's node."""

    service: str
    worker: str
    internal: str
    node: str


class Post(NamedTuple):
    session: str
    node: str
    data: bytes
    """What it stands for depends on the session: `commands_of`."""


def seal_owner(seal: Seal, owner: Owner) -> str:
    """What a client is told instead of Centrifugo's node."""
    return seal.close(_NODE, *owner)


def owner_of(seals: Sequence[Seal], node: str) -> Owner | None:
    """None for a node that no gateway has sealed."""
    for seal in seals:
        opened = seal.open(_NODE, node)
        if opened is not None and len(opened) == len(Owner._fields):
            return Owner(*opened)
    return None


def read_post(body: bytes, *, protobuf: bool) -> Post:
    """ValueError where Centrifugo would not understand it either.

    It reads names in any case, takes the last of several, and ignores what follows the object: so what is passed on is
    always built anew.
    """
    if not protobuf:
        return _read_object(body)
    read = parse_emulation(body)
    if read is None:
        raise ValueError("is no EmulationRequest")
    node, session, data = read
    return Post(_text(session), _text(node), data)


def build_post(post: Post) -> bytes:
    """For another worker or node of ours, in Protobuf."""
    return build_emulation(post.node.encode(), post.session.encode(), post.data)


def commands_of(data: bytes, *, protobuf: bool) -> bytes | None:
    """What a post asks of a session of this protocol; None where that can't be read (Centrifugo does nothing then)."""
    if protobuf:
        return data
    try:
        text = json.loads(_text(data)) if data else 0
    except (ValueError, RecursionError):
        return None
    if text is None:
        return b""
    return _bytes(text) if isinstance(text, str) else None


def _read_object(body: bytes) -> Post:
    try:
        members, _ = _decode(_text(body).lstrip(" \t\r\n"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if members is not None and not isinstance(members, _Members):
        raise ValueError("must be an object")
    found: dict[str, object] = {}
    for name, value in members or ():
        lower = name.lower()
        if lower not in _FIELDS or (value is None and lower != "data"):
            continue
        if lower != "data" and not isinstance(value, str):
            raise ValueError(f"has a {lower} that is no text")
        found[lower] = value
    data = json.dumps(_plain(found["data"])).encode() if "data" in found else b""
    return Post(str(found.get("session", "")), str(found.get("node", "")), data)


class _Members(list[tuple[str, object]]):
    """Of an object, in order, those of the same name included."""


_decode = JSONDecoder(object_pairs_hook=_Members).raw_decode


def _plain(data: object) -> object:
    """Whatever is no text is nothing that a JSON session would read, and only JSON says so."""
    return data if data is None or isinstance(data, str) else 0


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _bytes(text: str) -> bytes:
    """JSON can spell halves of characters alone; Go reads them as U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
