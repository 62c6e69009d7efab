from typing import Final

REFUSED: Final = -1
UNCOUNTED: Final = 0

class CrowdFile:
    @staticmethod
    def create(path: str, blocks: int, addresses: int) -> CrowdFile: ...
    @staticmethod
    def attach(path: str) -> CrowdFile: ...
    def block(self, index: int) -> Crowd: ...
    def clear(self, index: int) -> None: ...
    def close(self) -> None: ...

class Crowd:
    def enter(self, address: bytes, most: int, most_per_address: int) -> int:
        """Count a connection in, of whoever has this `address` (empty: nobody knows) while the node has at most so
        many, itself included; 0: no limit. Its place, to be given to `leave`, or REFUSED: it isn't counted."""
    def leave(self, place: int) -> None:
        """The connection that has this place is gone."""
    def count(self, address: bytes = b"") -> int:
        """How many connections the node has, from one address or in all."""
