"""Rules for the text of single settings: each returns the text as it is kept, or raises ValueError with what is wrong.

No message repeats the text: it may hold a secret.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from .address import TcpAddress, parse_address, parse_host, parse_port
from .ttl import parse_ttl

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_NAMESPACE: Final = re.compile(r"[-a-zA-Z0-9_.]{2,}")  # Centrifugo's own rule
_FRAMING_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_address(text: str) -> str:
    return str(parse_address(text))


TEMPLATE_VARIABLE: Final = re.compile(r"\{\{(\w+)\}\}")


def check_url(text: str) -> str:
    if not text:
        return text
    if not text.startswith(("http://", "https://")):
        raise ValueError("must be a URL that starts with http:// or https://")
    if not re.fullmatch(r"[!-~]+", text) or re.search(r'[\\<>"^`{|}]', text):
        raise ValueError("has a character that must not stand in a URL")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or fragment")
    authority = text.split("/", 3)[2]
    if "@" in authority:
        raise ValueError("must not have a user or password")
    _check_authority(authority)
    urlsplit(text)
    return text


def check_endpoint(text: str) -> str:
    """A URL to which `/` and the event's name are appended."""
    return check_url(text).rstrip("/")


def check_prefix(text: str) -> str:
    if text in ("", "/"):
        return ""
    if not text.startswith("/"):
        raise ValueError("must start with /")
    if text.endswith("/"):
        raise ValueError("must not end with /")
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("must be a plain path, such as /centrifugo")
    return text


def check_header(text: str) -> str:
    if not text:
        return text
    if not _TOKEN.fullmatch(text):
        raise ValueError("must be the name of an HTTP header, such as X-Real-Ip")
    if text.lower() in _FRAMING_HEADERS or text.lower().startswith("x-cpro-"):
        raise ValueError("must not be a header that HTTP or cpro itself uses")
    return text


def check_exported_header(text: str) -> str:
    """Kept as Go spells it, `User-Agent`; cpro's own secret is nobody's to export."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("must be the name of an HTTP header, such as User-Agent")
    name = "-".join(part.capitalize() for part in text.split("-"))
    if name == "X-Cpro-Secret":
        raise ValueError("must not be the header that carries cpro's own secret")
    return name


def check_header_value(text: str) -> str:
    if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", text):
        raise ValueError("must be visible ASCII characters, without spaces at its ends: it travels in a header")
    return text


def is_namespace(text: str) -> bool:
    return _NAMESPACE.fullmatch(text) is not None


def check_namespace(text: str) -> str:
    if not is_namespace(text):
        raise ValueError("must be a namespace's name: two or more letters, digits, '-', '_' or '.'")
    return text


def check_filled(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("must not be empty")
    return text


def check_client_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]*", text):  # the rule of CLIENT SETNAME
        raise ValueError("must be visible ASCII characters without spaces")
    return text


def check_database(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("must be the name of a database: letters, digits and '_', no digit first")
    return text


def check_cluster(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.{}-]*", text):
        raise ValueError("must be the name of a cluster: letters, digits, '_', '-', '.', or a macro such as {cluster}")
    return text


def check_template(text: str) -> str:
    """A URL with `{{variables}}` in its path."""
    origin, path = text[: _path_start(text)], text[_path_start(text) :]
    check_url(origin + TEMPLATE_VARIABLE.sub("x", path))
    return text


def _path_start(url: str) -> int:
    start = url.find("/", url.find("://") + 3)
    return start if start >= 0 else len(url)


def check_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error.msg}") from None
    return text


def check_claim(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z_]*", text):  # Centrifugo's own rule
        raise ValueError("must be letters and `_` only")
    return text


def check_network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8, or an address") from None


def check_internal(text: str) -> str:
    """An address that other machines can name."""
    if not text:
        return text
    address = parse_address(text)
    if not isinstance(address, TcpAddress) or not address.host or address.port == 0:
        raise ValueError("must be host:port, as other nodes name it")
    return str(address)


RULES: Final[Mapping[str, Callable[[str], str]]] = {
    "address": check_address,
    "url": check_url,
    "endpoint": check_endpoint,
    "prefix": check_prefix,
    "header": check_header,
    "header_value": check_header_value,
    "namespace": check_namespace,
    "filled": check_filled,
    "client_name": check_client_name,
    "exported": check_exported_header,
    "database": check_database,
    "cluster": check_cluster,
    "ttl": parse_ttl,
    "template": check_template,
    "regex": check_regex,
    "claim": check_claim,
    "network": check_network,
    "internal": check_internal,
    "": lambda text: text,
}


def _check_authority(authority: str) -> None:
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, "80"
    if not host:
        raise ValueError("must have a host")
    parse_host(host)
    if parse_port(port) == 0:
        raise ValueError("must not have port 0")
