"""Keys that sign tokens, and a server that publishes them, or does anything else that servers do."""

import base64
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_FORMS = {"RS": jwt.algorithms.RSAAlgorithm, "ES": jwt.algorithms.ECAlgorithm, "Ed": jwt.algorithms.OKPAlgorithm}
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


class SigningKey:
    """One private key, made for an algorithm."""

    def __init__(self, name: str, algorithm: str = "RS256") -> None:
        self.name = name
        self.algorithm = algorithm
        self._private = _make(algorithm)

    def published(self, **more: object) -> dict:
        """What a set says of it; a None takes a member out."""
        public = _FORMS[self.algorithm[:2]].to_jwk(self._private.public_key(), as_dict=True)
        facts = {**public, "kid": self.name, "use": "sig", "alg": self.algorithm, **more}
        facts.pop("key_ops", None)
        return {name: value for name, value in facts.items() if value is not None}

    def sign(self, claims: dict, name: str | None = None) -> str:
        header = {"kid": self.name if name is None else name}
        whole = {"exp": int(time.time()) + 600, **claims}
        return jwt.encode(whole, self._private, algorithm=self.algorithm, headers=header)


def _make(algorithm: str) -> object:
    if algorithm.startswith("RS"):
        return rsa.generate_private_key(65537, 2048)
    return (
        ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(_CURVES[algorithm]())
    )


def key_set(*keys: SigningKey | dict) -> bytes:
    return json.dumps({"keys": [key.published() if isinstance(key, SigningKey) else key for key in keys]}).encode()


def symmetric(name: str, secret: bytes) -> dict:
    value = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return {"kty": "oct", "kid": name, "use": "sig", "k": value}


Answer = Callable[[BaseHTTPRequestHandler], object]
"""Answers a GET, or doesn't."""


class KeyServer:
    """Publishes what `answer` says; use as a context manager."""

    def __init__(self, answer: Answer | bytes) -> None:
        self.answer = answer
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.asked.append(self.path)
                answer = server.answer
                if isinstance(answer, bytes):
                    give(self, answer)
                else:
                    answer(self)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def __enter__(self) -> "KeyServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def give(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
