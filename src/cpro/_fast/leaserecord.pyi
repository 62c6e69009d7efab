from typing import NamedTuple, Self

from cpro._fast.bucketfile import BucketFile

class Peek(NamedTuple):
    tokens: int
    deadline_ns: int
    sequence: int
    flight: int
    spent_then: int
    half_ns: int
    start: int
    granted: int
    returned: int
    asked_ns: int
    next_ask_ns: int
    demand_mtps: int
    acked: int
    @property
    def spent(self) -> int: ...
    @property
    def half(self) -> int: ...
    def in_hand(self, now_ns: int) -> int: ...

class Record:
    start: int
    tokens: int
    deadline_ns: int
    sequence: int
    spent_then: int
    half_ns: int
    granted: int
    returned: int
    acked: int
    demand_mtps: int
    asked_ns: int
    next_ask_ns: int
    @property
    def pace(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def flight(self) -> int: ...
    @property
    def table(self) -> BucketFile: ...
    @property
    def tag(self) -> int: ...
    @property
    def owner(self) -> int: ...
    @property
    def spent(self) -> int: ...
    @property
    def half(self) -> int: ...
    def in_hand(self, now_ns: int) -> int: ...
    def accrued(self, now_ns: int, step_ns: int) -> int: ...
    def begin_stream(self, tokens: int, pace: int, room: int, limit: object, now_ns: int) -> None: ...
    def drop(self) -> None: ...
    def release(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *fault: object) -> None: ...
