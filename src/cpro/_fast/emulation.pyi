def parse_emulation(body: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Node, session and commands of a Protobuf EmulationRequest; None when Centrifugo would answer 400.

    In JSON (`{"session", "node", "data"}`, of which `data` is a string of commands) Centrifugo reads keys in any case
    and takes the last of several: forward what was understood, encoded anew, never the body as it came."""

def build_emulation(node: bytes, session: bytes, commands: bytes) -> bytes:
    """The same, encoded."""
