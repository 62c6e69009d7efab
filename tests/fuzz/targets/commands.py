"""Commands and replies: JSON as the twin of Centrifugo's decoder reads it, and whatever is rewritten reads the same."""

from cpro._fast.commands import build_payload, parse_commands, without_dictionary
from cpro._fast.replies import build_replaced_session, parse_replies
from tests.oracle.commands import compare

PROTOBUF = 1
TEXTS = ("kind", "channel", "method", "token", "name", "version", "cursor")
OF_REPLIES = ("kind", "reason", "channel", "client", "version", "session", "node", "cursor")


def run(data: bytes) -> None:
    protobuf, payload = bool(data[:1] and data[0] & PROTOBUF), data[1:]
    read_commands(payload, protobuf)
    read_replies(payload, protobuf)
    if not protobuf:
        try:
            compare(payload)
        except RecursionError:  # the twin's, which is plain
            return


def facts(command) -> tuple:
    numbers = (command.id, command.data_size, command.flag, command.type, command.phase, command.limit)
    return (*(getattr(command, name) for name in TEXTS), *numbers, command.recover, command.has_headers)


def read_commands(payload: bytes, protobuf: bool) -> None:
    commands = parse_commands(payload, protobuf)
    good = [command for command in commands if not command.fault]
    if good:
        again = parse_commands(build_payload(payload, good, protobuf), protobuf)
        assert [facts(command) for command in again] == [facts(command) for command in good]
        assert all(command.encoded is None and not command.fault for command in again)
    for command in good:
        if command.kind == "connect":
            (plain,) = parse_commands(without_dictionary(command), protobuf)
            assert not plain.wants_dictionary
            assert (plain.id, plain.token, plain.name) == (command.id, command.token, command.name)


def read_replies(payload: bytes, protobuf: bool) -> None:
    for reply in parse_replies(payload, protobuf):
        assert all(isinstance(getattr(reply, name), str) for name in OF_REPLIES)
        assert isinstance(reply.subs, list)
        if reply.kind == "connect":
            (again,) = parse_replies(build_replaced_session(reply, "s", "n"), protobuf)
            assert (again.id, again.client, again.subs) == (reply.id, reply.client, reply.subs)
            assert not again.session or again.session == "s"
