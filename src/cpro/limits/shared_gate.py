"""The gate where `redis_user_command` is shared with other nodes: tokens in hand first, else the leaser asks the store.

All buckets are charged in one go without waiting in between: an operation that is refused spends nothing (a token in
hand goes back), and one that waited for the store is not let through by a look that is old.
"""

from collections.abc import Callable
from functools import partial

from cpro._fast.buckets import REFUSED, BucketTable, Plan
from cpro._fast.leasetable import DUE, EMPTY, LeaseTable
from cpro.clock import boot_ns
from cpro.config.model import RateLimit
from cpro.limits.gate import USER, Gate
from cpro.limits.leaser import Leaser, Outcome
from cpro.limits.rules import Leased, Rules
from cpro.operation import Operation, Verdict

_ADMITTED, _REFUSED, _REFUSED_DRY = 1 << 4, 2 << 4, 3 << 4
"""What the store says, in the block's place of an answer of the table (see `gate`)."""


def _with(code: int, said: int) -> int:
    """The answer of the node's buckets and of the store: where the node keeps the block too, both must admit."""
    return code if code & _REFUSED else (code & 0b1111) | said


_SPENT = tuple(code if REFUSED[code] else _with(code, _ADMITTED) for code in range(DUE))
"""By the code of the node's buckets, where a token was in hand: what is refused has left it there."""


class SharedGate(Gate):
    """One per worker, over the node's bucket table and lease table."""

    def __init__(self, table: BucketTable, count: Callable[[int], None], leases: LeaseTable, leaser: Leaser) -> None:
        super().__init__(table, count)
        self._leases = leases
        self._leaser = leaser
        self._on_store_error: str
        self._refused: int
        self._plain_leased: dict[str, Leased]

    def configure(self, limits: RateLimit, rules: Rules) -> None:
        super().configure(limits, rules)
        self._on_store_error = limits.on_store_error
        dry_run = limits.dry_run or limits.redis_user_command.dry_run
        self._refused = _REFUSED_DRY if dry_run else _REFUSED
        leased = {kind: rules.leased.get(plan) for kind, plan in self._plain.items()}
        self._plain_leased = {kind: one for kind, one in leased.items() if one is not None}
        self._leaser.configure(rules.leased.values(), limits.store_timeout.seconds)

    def charge(self, operation: Operation, now_ns: int, *, own_only: bool = False) -> Verdict | None:
        """As `Gate.charge`; None: the store has to be asked, by `wait`."""
        leased = None if own_only else self._plain_leased.get(operation.kind)
        user = operation.user
        if leased is None or not user or user in self._exempt or self._leaser.is_troubled:
            return super().charge(operation, now_ns, own_only=own_only)
        code = self._leases.charge(leased.plan, self._table, leased.local, operation.client, user, USER, now_ns)
        if 0 <= code < DUE:  # the way of nearly everybody
            return self._conclude(operation, _SPENT[code])
        return self._on_charged(code, leased, leased.local, operation, user, USER, now_ns)

    def _charge(self, plan: Plan, operation: Operation, now_ns: int) -> Verdict | None:
        leased = self._rules.leased.get(plan)
        if leased is None or (operation.user and operation.user in self._exempt):
            return super()._charge(plan, operation, now_ns)
        user, kind = (operation.user, USER) if operation.user else self._stand_in(operation)
        if not user:
            return super()._charge(plan, operation, now_ns)
        if self._on_store_error == "local" and self._leaser.keeps_locally(user, kind, now_ns):
            plan = leased.with_local
        code = self._leases.charge(leased.plan, self._table, plan, operation.client, user, kind, now_ns)
        return self._on_charged(code, leased, plan, operation, user, kind, now_ns)

    def _on_charged(
        self, got: int, leased: Leased, plan: Plan, operation: Operation, user: str, kind: int, now_ns: int
    ) -> Verdict | None:
        """What becomes of that which the leases and the node's buckets in `plan` answered `got` to."""
        if got >= DUE:
            self._leaser.refill(user, kind, leased)
        if got >= 0:
            return self._conclude(operation, _SPENT[got % DUE])
        code, _ = self._table.look(plan, operation.client, user, kind, now_ns)
        if REFUSED[code]:
            return self._conclude(operation, code)
        if got == -EMPTY:
            if leased.may_stream:
                self._leaser.on_refused(user, kind, leased, now_ns)
            return self._settle(plan, operation, user, kind, now_ns, self._refused)
        if self._leaser.is_away(user, kind):
            return self._without_store(leased, operation, user, kind, now_ns)
        return None

    def wait(self, operation: Operation, decide: Callable[[Verdict], None], *, own_only: bool = False) -> None:
        """Have the store asked for an operation that `charge` could not decide."""
        plan = self._plan(operation, own_only)
        leased = self._rules.leased.get(plan)
        user, kind = (operation.user, USER) if operation.user else self._stand_in(operation)
        if leased is None:  # a reload came between
            verdict = super()._charge(plan, operation, boot_ns())
            assert verdict is not None, "the node's own table always decides"  # noqa: S101
            decide(verdict)
            return
        self._leaser.ask(user, kind, leased, partial(self._on_outcome, plan, leased, operation, user, kind, decide))

    def _on_outcome(
        self,
        plan: Plan,
        leased: Leased,
        operation: Operation,
        user: str,
        kind: int,
        decide: Callable[[Verdict], None],
        outcome: Outcome,
    ) -> None:
        now_ns = boot_ns()
        if outcome is Outcome.STORE_AWAY:
            decide(self._without_store(leased, operation, user, kind, now_ns))
            return
        if self._on_store_error == "local" and self._leaser.keeps_locally(user, kind, now_ns):
            plan = leased.with_local
        said = _ADMITTED if outcome is Outcome.GRANTED else self._refused
        decide(self._settle(plan, operation, user, kind, now_ns, said))

    def _settle(self, plan: Plan, operation: Operation, user: str, kind: int, now_ns: int, said: int) -> Verdict:
        """Charge the node's buckets where the store doesn't refuse; `said` stands for its block."""
        if said == _REFUSED:
            code, _ = self._table.look(plan, operation.client, user, kind, now_ns)
        else:
            code = self._table.charge(plan, operation.client, user, kind, now_ns)
        return self._conclude(operation, _with(code, said))

    def _without_store(self, leased: Leased, operation: Operation, user: str, kind: int, now_ns: int) -> Verdict:
        """The store is away: `on_store_error` decides."""
        if self._on_store_error == "local":
            self._leaser.on_local(now_ns)
            code = self._table.charge(leased.with_local, operation.client, user, kind, now_ns)
            return self._conclude(operation, code)
        said = _ADMITTED if self._on_store_error == "allow" else self._refused
        return self._settle(leased.local, operation, user, kind, now_ns, said)
