"""Whose token it is, and whether that is certain."""

import time
from functools import cache

import jwt
import pytest

from cpro.config.model import Token
from cpro.config.tls import resolve_pem
from cpro.doors.gateway import keysets
from cpro.doors.gateway.keysets import AGAIN_NS, FRESH_NS, KEPT_NS, MOST_SETS, KeySets, read_keys
from cpro.doors.gateway.tokens import Claim, Tokens
from tests.support.keys import SigningKey, key_set, symmetric

SECRET = "a secret of at least thirty-two bytes"
URL = "https://id.example/keys"
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")


@cache
def key(name: str, algorithm: str = "ES256") -> SigningKey:
    return SigningKey(name, algorithm)


class Scene:
    """Sets at an endpoint, a clock, and who was asked."""

    def __init__(self, endpoint: str = URL, **settings: str) -> None:
        self.now_ns = 10**12
        self.asked: list[tuple] = []
        sets = KeySets(endpoint, lambda url, hear: self.asked.append((url, hear)), lambda: self.now_ns)
        self.tokens = Tokens(Token(jwks_public_endpoint=endpoint, **settings), resolve_pem, sets.find)

    def answer(self, content: bytes | None) -> str:
        """Answer the oldest question; its URL."""
        url, hear = self.asked.pop(0)
        hear(content)
        return url

    def is_verified(self, token: str) -> bool:
        claim = self.tokens.read(token)
        return claim is not None and claim.is_verified

    def wait(self, ns: int) -> "Scene":
        self.now_ns += ns
        return self


# -- without keys, and with a key of one's own


def test_without_keys_a_token_is_a_claim():
    tokens = Tokens(Token(), resolve_pem)
    assert tokens.read(jwt.encode({"sub": "ann"}, SECRET)) == Claim("ann", False)
    assert tokens.read(jwt.encode({"sub": 5}, SECRET)) == Claim("5", False)
    for not_one in ("", "a.b", "a.b.c", "a.!!.c", "a.eyJ9.c", "a.W10.c"):
        assert tokens.read(not_one) is None


@pytest.mark.parametrize(
    ("settings", "claims", "is_verified"),
    [
        ({}, {}, True),
        ({}, {"exp": 1}, False),
        ({}, {"nbf": time.time() + 1000}, False),
        ({"audience": "a"}, {"aud": ["b", "a"]}, True),
        ({"audience": "a"}, {"aud": "b"}, False),
        ({"audience_regex": "^a[0-9]$"}, {"aud": ["b", "a1"]}, True),
        ({"audience_regex": "^a[0-9]$"}, {}, False),
        ({"audience_regex": "^a[0-9]$"}, {"aud": [5]}, False),
        ({"issuer": "i"}, {"iss": "i"}, True),
        ({"issuer": "i"}, {"iss": "j"}, False),
        ({"issuer_regex": "^i"}, {"iss": "ij"}, True),
        ({"issuer_regex": "^i"}, {}, False),
    ],
)
def test_a_token_must_be_signed_timely_and_for_us(settings: dict, claims: dict, is_verified: bool):
    tokens = Tokens(Token(hmac_secret_key=SECRET, **settings), resolve_pem)
    assert tokens.read(jwt.encode({"sub": "ann", **claims}, SECRET)) == Claim("ann", is_verified)
    forged = tokens.read(jwt.encode({"sub": "ann", **claims}, SECRET + "?"))
    assert forged is None or not forged.is_verified


# -- published keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("says_algorithm", [True, False])
def test_published_keys_verify_what_they_have_signed(algorithm: str, says_algorithm: bool):
    signer, other = key("k", algorithm), key("other", algorithm)
    scene = Scene()
    published = signer.published() if says_algorithm else signer.published(alg=None)
    assert scene.answer(key_set(published)) == URL
    assert scene.is_verified(signer.sign({"sub": "ann"}))
    assert not scene.is_verified(other.sign({"sub": "ann"}, name="k"))
    assert not scene.is_verified(signer.sign({"sub": "ann", "exp": 1}))


def test_a_key_is_good_for_nothing_but_what_it_was_published_for():
    signer = key("k", "RS256")
    for published in (
        signer.published(use="enc"),
        signer.published(use=None),
        signer.published(alg="RS512"),
        signer.published(kid=""),
        signer.published(kid=None),
        signer.published(n="AAAA"),
        signer.published(n=None),
        signer.published(kty="EC"),
        signer.published(kty=["RSA"]),
        symmetric("k", SECRET.encode()),
    ):
        scene = Scene()
        scene.answer(key_set(published))
        assert not scene.is_verified(signer.sign({"sub": "ann"}))
        assert not scene.is_verified(jwt.encode({"sub": "ann"}, SECRET, headers={"kid": "k"}))
        assert not scene.is_verified(jwt.encode({"sub": "ann"}, "", algorithm="none", headers={"kid": "k"}))


def test_bad_keys_of_a_set_do_not_cost_the_good_ones():
    keys = read_keys(key_set(key("a").published(x="!"), key("b"), {"use": "sig", "kid": 5}, {}, key("c", "EdDSA")))
    assert keys is not None
    assert sorted(keys) == ["b", "c"]
    for no_set in (b"", b"{}", b"[]", b'{"keys":{}}', b'{"keys":[1]}', b"\xff", b"[" * 100_000):
        assert read_keys(no_set) is None


def test_until_a_key_is_known_the_token_is_a_claim():
    scene = Scene()
    token = key("k").sign({"sub": "ann"})
    assert scene.tokens.read(token) == Claim("ann", False)
    scene.answer(None)
    assert scene.tokens.read(token) == Claim("ann", False)
    assert scene.asked == [], "not at once again"
    scene.wait(AGAIN_NS)
    assert scene.tokens.read(token) == Claim("ann", False)
    scene.answer(key_set(key("k")))
    assert scene.tokens.read(token) == Claim("ann", True)


def test_a_new_key_is_found_by_the_first_token_that_names_it():
    scene = Scene()
    scene.answer(key_set(key("old")))
    scene.wait(AGAIN_NS)
    assert scene.is_verified(key("old").sign({}))
    assert not scene.asked
    assert not scene.is_verified(key("new").sign({}))
    scene.answer(key_set(key("old"), key("new")))
    assert scene.is_verified(key("new").sign({}))
    assert scene.is_verified(key("old").sign({}))


def test_tokens_of_unknown_keys_cause_no_storm():
    scene = Scene()
    scene.answer(key_set(key("k")))
    for number in range(100):
        assert not scene.is_verified(key("k").sign({"sub": "ann"}, name=f"unknown {number}"))
        scene.wait(AGAIN_NS // 10)
        while scene.asked:
            assert scene.answer(key_set(key("k"))) == URL
            scene.questions = getattr(scene, "questions", 0) + 1
    assert 9 <= scene.questions <= 11


def test_a_question_under_way_is_not_asked_twice():
    scene = Scene()
    for _ in range(3):
        scene.wait(AGAIN_NS)
        assert not scene.is_verified(key("k").sign({}))
    assert len(scene.asked) == 1


def test_a_key_without_a_name_is_nobodys():
    scene = Scene()
    scene.answer(key_set(key("k")))
    scene.wait(AGAIN_NS)
    assert not scene.is_verified(key("k").sign({}, name=""))
    assert not scene.is_verified(jwt.encode({}, SECRET))
    assert scene.asked == []


def test_keys_are_fetched_again_before_they_are_too_old():
    scene = Scene()
    scene.answer(key_set(key("k")))
    token = key("k").sign({"exp": time.time() + 10**6})
    scene.wait(FRESH_NS - 1)
    assert scene.is_verified(token)
    assert not scene.asked
    scene.wait(1)
    assert scene.is_verified(token), "it may still be used"
    scene.answer(None)
    scene.wait(KEPT_NS - FRESH_NS - 1)
    assert scene.is_verified(token)
    scene.answer(None)
    scene.wait(1)
    assert not scene.is_verified(token), "nobody knows whether it is still good"
    scene.wait(AGAIN_NS)
    assert not scene.is_verified(token)
    scene.answer(key_set(key("k")))
    assert scene.is_verified(token)


def test_a_withdrawn_key_is_good_for_nothing_once_that_is_known():
    scene = Scene()
    scene.answer(key_set(key("k"), key("other")))
    scene.wait(FRESH_NS)
    assert scene.is_verified(key("k").sign({"exp": time.time() + 10**6}))
    scene.answer(key_set(key("other")))
    assert not scene.is_verified(key("k").sign({"exp": time.time() + 10**6}))


# -- endpoints with variables


TEMPLATE = "https://id.example/{{realm}}/keys"
REALM = r"^https://id\.example/(?P<realm>.+)$"


def of_realm(realm: str, signer: SigningKey) -> str:
    return signer.sign({"sub": "ann", "iss": f"https://id.example/{realm}"})


def test_each_realm_has_keys_of_its_own():
    scene = Scene(TEMPLATE, issuer_regex=REALM)
    assert not scene.asked
    for realm in ("a", "b"):
        assert not scene.is_verified(of_realm(realm, key(realm)))
        assert scene.answer(key_set(key(realm).published(kid="same"))) == f"https://id.example/{realm}/keys"
    for realm, other in (("a", "b"), ("b", "a")):
        claims = {"sub": "ann", "iss": f"https://id.example/{realm}"}
        assert scene.is_verified(key(realm).sign(claims, name="same"))
        assert not scene.is_verified(key(other).sign(claims, name="same"))


@pytest.mark.parametrize("realm", ["..", ".", "a/b", "a/../b", "%2e%2e", "a?b", "a#b", "a b", "", "\u00e4", "a" * 129])
def test_a_variable_is_a_part_of_the_path_and_no_more(realm: str):
    scene = Scene(TEMPLATE, issuer_regex=REALM)
    assert not scene.is_verified(of_realm(realm, key("k")))
    assert scene.asked == []


def test_as_many_realms_as_a_client_may_think_of_cost_no_more_than_so_many():
    scene = Scene(TEMPLATE, issuer_regex=REALM)
    assert not scene.is_verified(of_realm("good", key("k")))
    scene.answer(key_set(key("k")))
    for number in range(10 * MOST_SETS):
        assert not scene.is_verified(of_realm(f"r{number}", key("k")))
    assert len(scene.asked) == MOST_SETS - 1
    while scene.asked:
        scene.answer(None)
    assert scene.is_verified(of_realm("good", key("k")))
    assert not scene.is_verified(of_realm("r1000000", key("k")))
    assert scene.asked == []
    scene.wait(AGAIN_NS)
    assert not scene.is_verified(of_realm("new", key("n")))
    scene.answer(key_set(key("n")))
    assert scene.is_verified(of_realm("new", key("n")))
    assert scene.is_verified(of_realm("good", key("k")))


def test_sets_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keysets, "MOST_KEYS", 2)
    keys = read_keys(key_set(key("a"), key("b"), key("c")))
    assert keys is not None
    assert sorted(keys) == ["a", "b"]
