"""What a post says, read as Centrifugo reads it; and whose session it is for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.emulation import build_emulation
from cpro.doors.gateway.emulation import Owner, Post, build_post, commands_of, owner_of, read_post, seal_owner
from cpro.doors.seal import Seal

COMMAND = '{"id":2,"presence":{"channel":"x"}}'
DATA = json.dumps(COMMAND)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"session":"s","node":"n","data":{DATA}}}',
        f'{{"Session":"s","NODE":"n","dAta":{DATA}}}',
        f' {{"session":"s","node":"n","data":{DATA}}} and more',
        f'{{"session":"other","session":"s","node":"n","data":"x","data":{DATA}}}',
        f'{{"session":"other","SESSION":"s","node":"n","data":{DATA}}}',
        f'{{"session":"s","session":null,"node":"n","data":{DATA}}}',
        f'{{"session":"s","node":"n","data":{DATA},"more":{{"session":"other"}}}}',
    ],
    ids=["plain", "any case", "trailing", "repeated", "repeated in another case", "null", "nested"],
)
def test_a_post_in_json_is_read_by_centrifugos_rules(body):
    post = read_post(body.encode(), protobuf=False)
    assert post[:2] == ("s", "n")
    assert commands_of(post.data, protobuf=False) == COMMAND.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"[1]",
        b'"session"',
        b"5",
        b'{"session":1}',
        b'{"node":{}}',
        b'{"session":"a\nb"}',
        b'{"session":"s"',
        b"[" * 50_000,
        b'{"data":' * 10_000,
        b'{"id":' + b"9" * 60_000 + b"}",
    ],
)
def test_what_centrifugo_would_answer_by_400(body):
    with pytest.raises(ValueError, match=r"\w"):
        read_post(body, protobuf=False)


@pytest.mark.parametrize(
    ("data", "commands"),
    [
        (b"", None),
        (b"null", b""),
        (b'""', b""),
        (b"5", None),
        (b"{}", None),
        (b'"a', None),
        (b'"\xff"', "\ufffd".encode()),
        (b'"\\ud800"', "\ufffd".encode()),
        (b'"\\ud83d\\ude00"', "\U0001f600".encode()),
        (b"[" * 50_000, None),
    ],
)
def test_commands_of_a_json_session(data, commands):
    assert commands_of(data, protobuf=False) == commands


def test_commands_of_a_protobuf_session_are_the_data_itself():
    assert commands_of(b"\x04\x08\x01\x22\x00", protobuf=True) == b"\x04\x08\x01\x22\x00"
    assert commands_of(b"", protobuf=True) == b""


def test_null_and_empty_and_absent_members_are_empty():
    assert read_post(b"{}", protobuf=False) == Post("", "", b"")
    assert read_post(b"null", protobuf=False) == Post("", "", b"")
    assert read_post(b'{"data":null}', protobuf=False).data == b"null"
    assert commands_of(read_post(b'{"data":{"id":1}}', protobuf=False).data, protobuf=False) is None


def test_a_post_in_protobuf_and_on_its_way_to_a_peer():
    post = Post("s\u00e9", "n", b"\x00\x01")
    assert read_post(build_emulation(b"n", "s\u00e9".encode(), b"\x00\x01"), protobuf=True) == post
    assert read_post(build_post(post), protobuf=True) == post
    with pytest.raises(ValueError, match="EmulationRequest"):
        read_post(b"\xff" * 11, protobuf=True)


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(body):
    for protobuf in (False, True):
        try:
            post = read_post(body, protobuf=protobuf)
        except ValueError:
            continue
        assert read_post(build_post(post), protobuf=True) == post
        commands_of(post.data, protobuf=False)


def test_only_our_own_seals_name_an_owner():
    ours, before, others = Seal(b"secret"), Seal(b"the secret before"), Seal(b"somebody's")
    owner = Owner("service", "1", "10.0.0.1:9000", "da401e3e")
    assert owner_of([ours], seal_owner(ours, owner)) == owner
    assert owner_of([ours, before], seal_owner(before, owner)) == owner
    for node in ("", "da401e3e", seal_owner(others, owner), ours.close("user", *owner), ours.close("node", "a", "b")):
        assert owner_of([ours, before], node) is None


@given(st.integers(min_value=0, max_value=200), st.integers(min_value=1, max_value=255))
def test_a_changed_seal_names_nobody(at, change):
    seal = Seal(b"secret")
    sealed = bytearray(seal_owner(seal, Owner("service", "1", "10.0.0.1:9000", "da401e3e")).encode())
    sealed[at % len(sealed)] ^= change
    assert owner_of([seal], sealed.decode("latin-1")) is None
