from collections.abc import Iterable
from typing import NamedTuple

from cpro._fast.bucketfile import BucketFile

CLIENT: int
USER: int
NEVER_NS: int
REFUSED: tuple[bool, ...]

class Layer(NamedTuple):
    block: int
    keyed_by: int
    identity: int
    step_ns: int
    full_ns: int
    previous_identity: int = 0
    previous_full_ns: int = 0
    returns: bool = False

class Plan:
    def __init__(self, layers: Iterable[Layer], dry_run: tuple[bool, bool, bool] = (False, False, False)) -> None: ...
    def __len__(self) -> int: ...

class BucketTable(BucketFile):
    def charge(self, plan: Plan, client: str, user: str, user_kind: int, now_ns: int, tokens: int = 1) -> int: ...
    def look(
        self, plan: Plan, client: str, user: str, user_kind: int, now_ns: int, tokens: int = 1
    ) -> tuple[int, int]: ...
    def tokens_left(self, plan: Plan, client: str, user: str, user_kind: int, now_ns: int) -> int: ...
