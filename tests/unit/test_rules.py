"""Contract 4.1 without a network: which buckets an operation pays from, and that a refused one pays nothing."""

import msgspec
import pytest

from cpro._fast.buckets import BucketTable
from cpro.config.duration import Duration
from cpro.config.load import load
from cpro.config.model import OPERATIONS as CONFIGURABLE
from cpro.config.model import Bucket, Rpc, Settings
from cpro.limits.gate import Gate
from cpro.limits.rules import Addition, channel_namespace, compile_rules, rpc_namespace
from cpro.operation import OPERATIONS, Operation, Verdict
from tests.support.service import limit

MINUTE_NS = 60 * 10**9


class Node:
    """A gate over a table of its own, with time in the test's hands."""

    def __init__(self, folder, **blocks):
        self.folder = folder
        self.now_ns = 10**12
        self.codes: list[int] = []
        self.table = BucketTable.create_or_open(str(folder / "table"), 1000, bytes(16), self.now_ns)
        self.gate = Gate(self.table, self.codes.append)
        self.rules = None
        self.configure(**blocks)

    def configure(self, **rate_limit):
        path = self.folder / "cpro.json"
        path.write_bytes(msgspec.json.encode({"client": {"rate_limit": rate_limit}}))
        settings = load(str(path), {}).settings
        limits = settings.client.rate_limit
        self.rules = compile_rules(limits, settings.channel, settings.rpc, previous=self.rules)
        self.gate.configure(limits, self.rules)

    def ask(self, kind, user="42", client="c1", channel="", method="", address="", **how) -> Verdict:
        return self.gate.charge(Operation(kind, client, user, channel, method, address), self.now_ns, **how)

    def admitted(self, tries, kind, **operation) -> int:
        return sum(self.ask(kind, **operation) is Verdict.ADMITTED for _ in range(tries))


@pytest.fixture
def node(tmp_path):
    return lambda **blocks: Node(tmp_path, **blocks)


def block(**operations):
    return {"enabled": True, **{name: limit(value) for name, value in operations.items()}}


def test_nothing_configured_limits_nothing(node):
    assert node().admitted(100, "publish") == 100


def test_a_block_that_is_not_enabled_limits_nothing(node):
    assert node(user_command={**block(publish=(1, "1m")), "enabled": False}).admitted(10, "publish") == 10


@pytest.mark.parametrize("name", ["client_command", "user_command", "redis_user_command"])
def test_total_works_in_every_block(node, name):
    n = node(**{name: block(total=(3, "1m"))})
    assert n.admitted(2, "publish") + n.admitted(5, "rpc", method="m") == 3


def test_client_command_counts_connections_apart_and_never_a_connect(node):
    n = node(client_command=block(default=(1, "1m")))
    assert [n.admitted(3, "publish", client=client) for client in ("a", "b")] == [1, 1]
    assert n.admitted(5, "connect") == 5


def test_operations_without_buckets_share_the_default_bucket(node):
    n = node(user_command=block(default=(3, "1m"), publish=(2, "1m")))
    assert n.admitted(5, "publish") == 2
    assert n.admitted(2, "history") + n.admitted(2, "presence") + n.admitted(2, "subscribe") == 3


def test_all_buckets_of_an_operation_must_have_a_token(node):
    two = {"enabled": True, "buckets": [{"interval": "1s", "rate": 2}, {"interval": "1m", "rate": 3}]}
    n = node(user_command=block(publish=two))
    assert n.admitted(5, "publish") == 2
    n.now_ns += 10**9
    assert n.admitted(5, "publish") == 1


def test_burst_changes_what_the_bucket_holds_not_how_it_refills(node):
    n = node(user_command=block(publish=(60, "1m", 5)))
    assert n.admitted(10, "publish") == 5
    n.now_ns += 10**9
    assert n.admitted(10, "publish") == 1


def test_a_namespace_override_replaces_exempts_or_means_default(node):
    publish = {
        **limit((1, "1m")),
        "namespace_overrides": [
            {"namespace_name": "chat", "buckets": [{"interval": "1m", "rate": 3}]},
            {"namespace_name": "free", "enabled": False},
            {"namespace_name": "plain"},
        ],
    }
    n = node(user_command=block(publish=publish, default=(2, "1m")))
    assert n.admitted(9, "publish", channel="chat:index") == 3
    assert n.admitted(9, "publish", channel="$chat:index") == 0, "private channels are in the same namespace"
    assert n.admitted(9, "publish", channel="free:x") == 9
    assert n.admitted(9, "publish", channel="plain:x") == 2
    assert n.admitted(9, "publish", channel="other:x") == 1


def test_a_method_override_is_stronger_than_one_of_its_namespace(node):
    rpc = {
        **limit((1, "1m")),
        "namespace_overrides": [{"namespace_name": "game", "buckets": [{"interval": "1m", "rate": 2}]}],
        "method_overrides": [{"method": "game:move", "buckets": [{"interval": "1m", "rate": 4}]}],
    }
    n = node(user_command=block(rpc=rpc))
    assert n.admitted(9, "rpc", method="game:move") == 4
    assert n.admitted(9, "rpc", method="game:chat") == 2
    assert n.admitted(9, "rpc", method="plain") == 1


def test_overrides_of_two_blocks_meet_in_one_method(node):
    method = {
        **limit((9, "1m")),
        "method_overrides": [{"method": "game:move", "buckets": [{"interval": "1m", "rate": 5}]}],
    }
    namespace = {
        **limit((9, "1m")),
        "namespace_overrides": [{"namespace_name": "game", "buckets": [{"interval": "1m", "rate": 3}]}],
    }
    n = node(client_command=block(rpc=method), user_command=block(rpc=namespace))
    assert n.admitted(9, "rpc", method="game:move") == 3


def test_an_exempt_method_still_counts_to_the_total(node):
    rpc = {**limit((1, "1m")), "method_overrides": [{"method": "free", "enabled": False}]}
    n = node(user_command=block(rpc=rpc, total=(5, "1m")))
    assert n.admitted(9, "rpc", method="free") == 5


@pytest.mark.parametrize(
    "refusing",
    [
        {"client_command": {"publish": (1, "1h")}, "user_command": {"publish": (5, "1h")}},
        {"user_command": {"publish": (1, "1h"), "total": (5, "1h")}},
        {"user_command": {"total": (1, "1h"), "publish": (5, "1h")}},
        {"user_command": {"publish": (5, "1h")}, "redis_user_command": {"publish": (1, "1h")}},
    ],
)
def test_a_refused_operation_spends_nothing(node, refusing):
    """Whichever bucket says no, the others stay as they were: with it out of the way they admit all they held."""
    n = node(**{name: block(**operations) for name, operations in refusing.items()})
    assert n.admitted(10, "publish") == 1
    kept = {
        name: block(**{kind: bucket for kind, bucket in operations.items() if bucket[0] == 5})
        for name, operations in refusing.items()
    }
    n.configure(**kept)
    assert n.admitted(10, "publish") == 4


def test_users_with_an_empty_id_are_not_limited_per_user(node):
    n = node(user_command=block(publish=(1, "1m")))
    assert n.admitted(9, "publish", user="") == 9


def test_anonymous_users_can_be_told_apart_by_connection_or_address(node):
    n = node(user_command=block(publish=(1, "1m")), anonymous="client")
    assert [n.admitted(3, "publish", user="", client=client) for client in ("a", "b")] == [1, 1]
    n.configure(user_command=block(publish=(1, "1m")), anonymous="ip")
    assert n.admitted(3, "publish", user="", client="c", address="10.0.0.1") == 1
    assert n.admitted(3, "publish", user="", client="d", address="10.0.0.1") == 0
    assert n.admitted(3, "publish", user="", client="d") == 1, "no address known: the connection"
    networks = ["2001:db8:1:2::1", "2001:db8:1:2:9::9", "2001:db8:1:3::1"]
    assert [n.admitted(3, "publish", user="", client="e", address=address) for address in networks] == [1, 0, 1]
    assert n.admitted(3, "publish", user="10.0.0.1") == 1, "a user of that name is somebody else"


def test_exempt_users_are_never_limited(node):
    n = node(user_command=block(publish=(1, "1m")), client_command=block(publish=(1, "1m")), exempt_users=["root"])
    assert n.admitted(9, "publish", user="root") == 9


def test_unsubscribe_takes_a_token_if_there_is_one_and_is_never_refused(node):
    n = node(user_command=block(total=(3, "1m")))
    assert n.admitted(9, "unsubscribe") == 9
    assert n.admitted(9, "publish") == 0


def test_dry_run_refuses_nothing_and_says_what_it_would_have(node):
    n = node(user_command=block(publish=(1, "1m")), dry_run=True)
    assert [n.ask("publish") for _ in range(2)] == [Verdict.ADMITTED, Verdict.DRY_RUN]
    n = node(user_command={**block(publish=(1, "1m")), "dry_run": True}, redis_user_command=block(publish=(3, "1m")))
    verdicts = [n.ask("publish", user="7") for _ in range(4)]
    assert verdicts == [Verdict.ADMITTED, Verdict.DRY_RUN, Verdict.DRY_RUN, Verdict.REFUSED]


def test_own_only_leaves_default_and_total_out(node):
    n = node(user_command=block(default=(1, "1m"), total=(1, "1m"), sub_refresh=(2, "1m")))
    verdicts = [n.ask("refresh", own_only=True) for _ in range(5)]
    assert verdicts == [Verdict.ADMITTED] * 5
    assert [n.ask("sub_refresh", own_only=True) for _ in range(3)][-1] is Verdict.REFUSED


@pytest.mark.parametrize(
    ("rate", "burst", "left"), [((20, "1m"), 10, 10), ((10, "1m", 20), 5, 10), ((10, "1m", 4), 5, 2)]
)
def test_a_reload_keeps_the_share_of_the_bucket_that_is_used(node, rate, burst, left):
    n = node(user_command=block(publish=(10, "1m")))
    assert n.admitted(5, "publish") == 5
    n.configure(user_command=block(publish=rate))
    assert n.admitted(50, "publish") == left


def test_a_reload_that_changes_the_interval_starts_a_full_bucket(node):
    n = node(user_command=block(publish=(10, "1m")))
    assert n.admitted(50, "publish") == 10
    n.configure(user_command=block(publish=(10, "2m")))
    assert n.admitted(50, "publish") == 10


def test_reordering_a_file_keeps_every_bucket(node):
    first, second = {"interval": "1m", "rate": 4}, {"interval": "1h", "rate": 9}
    n = node(user_command=block(publish={"enabled": True, "buckets": [first, second]}))
    assert n.admitted(9, "publish") == 4
    n.configure(user_command=block(publish={"enabled": True, "buckets": [second, first]}))
    assert n.admitted(9, "publish") == 0


@pytest.mark.parametrize(
    ("channel", "namespace"),
    [
        ("chat:index", "chat"),
        ("$chat:x", "chat"),
        ("news", ""),
        ("a:b:c", "a"),
        (":x", ""),
        ("chat#1", ""),
        ("$$a:b", "$a"),
    ],
)
def test_channel_namespaces_are_centrifugos(channel, namespace):
    assert channel_namespace(channel, load(None, {}).settings.channel) == namespace


def test_boundaries_are_a_setting_and_an_empty_one_turns_namespaces_off():
    assert rpc_namespace("a/b", Rpc(namespace_boundary="/")) == "a"
    assert rpc_namespace("a:b", Rpc(namespace_boundary="")) == ""


def test_every_operation_can_be_limited_and_nothing_else():
    assert sorted(CONFIGURABLE) == sorted(OPERATIONS)


def test_over_a_store_what_has_a_scope_stays_on_the_node():
    limits = Settings().client.rate_limit
    bucket = Bucket(interval=Duration.parse("1m"), rate=1)
    additions = [
        Addition(name, {"redis_user_command": (bucket,)}, is_scoped=is_scoped)
        for name, is_scoped in (("vote", True), ("wave", False))
    ]
    rules = compile_rules(limits, Settings().channel, Settings().rpc, extra=additions, has_store=True)
    assert rules.plan("wave", "", "") in rules.leased
    assert rules.plan("vote", "", "") not in rules.leased


def test_a_burst_that_was_changed_and_is_changed_back_keeps_what_was_used_of_both(node):
    n = node(user_command=block(publish=(10, "1h", 100)))
    assert n.admitted(50, "publish") == 50
    n.configure(user_command=block(publish=(10, "1h", 200)))
    assert n.admitted(90, "publish") == 90, "of 200 a half was used"
    n.configure(user_command=block(publish=(10, "1h", 100)))
    assert n.admitted(100, "publish") == 5, "of 200 nineteen twentieths were used"


def test_a_burst_that_was_changed_back_before_a_user_came_keeps_what_was_used(node):
    n = node(user_command=block(publish=(10, "1h", 100)))
    assert n.admitted(60, "publish") == 60
    for burst in (200, 100):
        n.configure(user_command=block(publish=(10, "1h", burst)))
    assert n.admitted(100, "publish") == 40


def test_a_reload_that_changes_something_else_keeps_what_a_changed_burst_inherits(node):
    n = node(user_command=block(publish=(10, "1h", 100)))
    assert n.admitted(50, "publish") == 50
    n.configure(user_command=block(publish=(10, "1h", 200)))
    n.configure(user_command=block(publish=(10, "1h", 200), rpc=(1, "1s")))
    assert n.admitted(200, "publish") == 100
