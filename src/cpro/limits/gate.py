"""May this operation happen now? One synchronous question to the bucket table; no waiting, no Redis.

The table answers with two bits a block (client, user, redis; lowest first): 0 not asked, 1 admitted, 2 refused,
3 refused in dry run.
"""

from collections.abc import Callable

from cpro._fast.buckets import REFUSED, BucketTable, Plan
from cpro.addresses import customer_of
from cpro.config.model import RateLimit
from cpro.limits.rules import Rules
from cpro.operation import NEVER_REFUSED, Operation, ScopedOperation, Verdict

USER, BY_CLIENT, BY_ADDRESS = 1, 2, 3
"""What the user part of a bucket's key is: a user id, or what stands in for one that is empty."""


def _verdict(code: int) -> Verdict:
    if REFUSED[code]:
        return Verdict.REFUSED
    refused_in_dry_run = any((code >> shift) & 3 == 3 for shift in (0, 2, 4))
    return Verdict.DRY_RUN if refused_in_dry_run else Verdict.ADMITTED


VERDICTS = tuple(_verdict(code) for code in range(64))
"""By the table's answer."""
_ADMITTED, _REFUSED = Verdict.ADMITTED, Verdict.REFUSED


class Gate:
    """Charges operations by the rules in force; one per worker."""

    def __init__(self, table: BucketTable, count: Callable[[int], None]) -> None:
        """`count` is told every answer: `cpro_limit_checks_total` is made of them."""
        self._table = table
        self._count = count
        self._rules: Rules
        self._plain: dict[str, Plan]
        self._exempt: frozenset[str]
        self._anonymous: str

    def configure(self, limits: RateLimit, rules: Rules) -> None:
        """Put `rules` in force from the next operation on."""
        self._rules = rules
        self._plain = rules.plans_without_overrides()
        self._exempt = frozenset(limits.exempt_users)
        self._anonymous = limits.anonymous

    @property
    def wants_address(self) -> bool:
        """Whether anonymous users are told apart by their address, so that doors should look for it."""
        return self._anonymous == "ip"

    def charge(self, operation: Operation, now_ns: int, *, own_only: bool = False) -> Verdict | None:
        """Take one token of every bucket that applies, or none at all.

        `own_only` leaves `default` and `total` out: operations that Centrifugo starts by itself.
        """
        plan = None if own_only else self._plain.get(operation.kind)
        return self._charge(plan or self._plan(operation, own_only), operation, now_ns)

    def charge_scoped(self, operation: ScopedOperation, now_ns: int, *, own_only: bool = False) -> Verdict | None:
        """The same for an operation whose own buckets are kept apart by its scope."""
        plan = self._rules.scoped_plan(
            operation.kind, operation.channel, operation.method, operation.scope, own_only=own_only
        )
        return self._charge(plan, operation, now_ns)

    def wait(self, operation: Operation, decide: Callable[[Verdict], None], *, own_only: bool = False) -> None:
        """For what `charge` could not decide; this gate always can."""
        raise NotImplementedError

    def _plan(self, operation: Operation, own_only: bool) -> Plan:
        return self._rules.plan(operation.kind, operation.channel, operation.method, own_only)

    def _charge(self, plan: Plan, operation: Operation, now_ns: int) -> Verdict | None:
        user, kind = operation.user, USER
        if not user:
            user, kind = self._stand_in(operation)
        elif user in self._exempt:
            return _ADMITTED
        code = self._table.charge(plan, operation.client, user, kind, now_ns)
        self._count(code)
        verdict = VERDICTS[code]
        return self._refuse(operation) if verdict is _REFUSED else verdict

    def _conclude(self, operation: Operation, code: int) -> Verdict:
        """The same for a gate that puts its answer together itself."""
        self._count(code)
        verdict = VERDICTS[code]
        return self._refuse(operation) if verdict is _REFUSED else verdict

    @staticmethod
    def _refuse(operation: Operation) -> Verdict:
        return _ADMITTED if operation.kind in NEVER_REFUSED else _REFUSED

    def _stand_in(self, operation: Operation) -> tuple[str, int]:
        """What an anonymous user is limited by; nobody is by an empty id."""
        if self._anonymous == "none":
            return "", USER
        if self._anonymous == "ip" and operation.address:
            return customer_of(operation.address), BY_ADDRESS
        return operation.client, BY_CLIENT
