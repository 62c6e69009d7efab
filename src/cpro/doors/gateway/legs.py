"""What the leg to Centrifugo tells the client's."""

from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Tap(Protocol):
    """What Centrifugo's leg tells the client's."""

    def on_upgraded(self, head: bytes, rest: bytes) -> None: ...

    def on_not_upgraded(self, answer: bytes) -> None: ...

    def on_far_data(self, data: bytes) -> None: ...

    def on_far_full(self, *, full: bool) -> None: ...

    def on_far_lost(self) -> None: ...
