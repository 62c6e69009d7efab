from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from cpro._fast.bucketfile import BucketFile
from cpro._fast.buckets import BucketTable, Plan
from cpro._fast.leaserecord import Peek as Peek
from cpro._fast.leaserecord import Record as Record

SPENT: Literal[0]
SPENT_DUE: Literal[1]
ASK: Literal[2]
EMPTY: Literal[3]
DUE: Literal[64]
FORGET_NS: int

class Sizes(Protocol):
    """What of `leases.Limit` is used here."""

    @property
    def tokens(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    @property
    def step_ns(self) -> int: ...
    @property
    def stream_ns(self) -> int: ...

class LeasePlan:
    def __init__(
        self,
        identities: Sequence[int],
        limits: Sequence[Sizes] = (),
        period_ns: int = ...,
        lead_ns: int = ...,
    ) -> None: ...
    def __len__(self) -> int: ...

class LeaseTable(BucketFile):
    clock: Callable[[], int] | None
    def spend(self, plan: LeasePlan, user: str, user_kind: int, now_ns: int, tokens: int = 1) -> int: ...
    def charge(
        self, plan: LeasePlan, table: BucketTable, own: Plan, client: str, user: str, user_kind: int, now_ns: int
    ) -> int: ...
    def give_back(self, plan: LeasePlan, user: str, user_kind: int, now_ns: int, tokens: int = 1) -> None: ...
    def retry_ns(self, plan: LeasePlan, user: str, user_kind: int, now_ns: int) -> int: ...
    def tag_of(self, plan: LeasePlan, place: int, user: str, user_kind: int) -> int: ...
    def claim(
        self, plan: LeasePlan, place: int, user: str, user_kind: int, owner: int, now_ns: int
    ) -> Record | Literal[False] | None: ...
    def claim_tag(self, tag: int, owner: int, now_ns: int) -> Record | None: ...
    def peek_tag(self, tag: int) -> Peek | None: ...
    def free_flights(self, owner: int) -> int: ...

def file_bytes(max_leases: int) -> int: ...
