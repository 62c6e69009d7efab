"""The API's method `rate_limit`: a token of any quota a backend thinks of."""

from collections.abc import Callable
from typing import Annotated, Final, Protocol

import msgspec

from cpro.clock import boot_ns, unix_ms
from cpro.doors.api_answers import INTERNAL_ERROR, ApiError
from cpro.limits.quota import KEY_CHARACTERS, LONGEST_MS, MOST, MOST_PER_MS, Quota, Standing, Tell
from cpro.operation import Verdict

Record = Callable[[Verdict, int], None]
Answer = Callable[[object], None]
"""Takes a result, or an ApiError."""


class Quotas(Protocol):
    """`LocalQuotas` or `SharedQuotas`."""

    def configure(self, timeout_s: float) -> None: ...

    def ask(self, quota: Quota, now_ns: int, tell: Tell) -> Standing | None: ...

    async def close(self) -> None: ...


class _Params(msgspec.Struct, gc=False):
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_CHARACTERS)]
    interval: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_MS)]
    rate: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    score: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 1
    dry_run: bool = False


class _Allowed(msgspec.Struct, gc=False):
    allowed: bool
    tokens_left: int


class _Refused(_Allowed, gc=False):
    allowed_in: int
    server_time: int


_decode: Final = msgspec.json.Decoder(_Params).decode


class RateLimit:
    """Decodes, asks, and words the answer."""

    def __init__(self, quotas: Quotas, record: Record) -> None:
        self._quotas = quotas
        self._record = record

    def __call__(self, params: bytes | msgspec.Raw, now_ns: int, answer: Answer) -> object | None:
        """The result, or an ApiError; None: `answer` hears later. Raises msgspec.DecodeError."""
        try:
            quota = _read(params)
        except msgspec.DecodeError:
            self._record(Verdict.INVALID, 0)
            raise
        is_dry = quota.dry_run
        standing = self._quotas.ask(quota, now_ns, lambda later: answer(self._conclude(later, now_ns, is_dry=is_dry)))
        return None if standing is None else self._conclude(standing, now_ns, is_dry=is_dry)

    def _conclude(self, standing: Standing | None, now_ns: int, *, is_dry: bool) -> _Allowed | _Refused | ApiError:
        duration_ns = max(0, boot_ns() - now_ns)
        if standing is None:
            self._record(Verdict.FAILED, duration_ns)
            return INTERNAL_ERROR
        if standing.allowed:
            self._record(Verdict.ADMITTED, duration_ns)
            return _Allowed(True, standing.tokens_left)
        self._record(Verdict.DRY_RUN if is_dry else Verdict.REFUSED, duration_ns)
        wait_ms = -(-standing.wait_ns // 10**6) if standing.wait_ns >= 0 else -1
        return _Refused(False, standing.tokens_left, wait_ms, unix_ms())


def _read(params: bytes | msgspec.Raw) -> Quota:
    read = _decode(params)
    if read.rate > MOST_PER_MS * read.interval:
        raise msgspec.ValidationError(f"Expected `rate` <= {MOST_PER_MS} per ms of `interval`")
    return Quota(read.key, read.interval, read.rate, read.score, read.dry_run)
