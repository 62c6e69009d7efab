"""Every error reply of Redis means one thing: follow it, the server is away, or the call is wrong."""

import pytest
from hiredis import Reader
from redis._parsers.base import BaseParser

from cpro.errors import StoreReplyError, StoreUnavailableError
from cpro.redis.replies import ERROR_REPLIES, Next, next_of, translate

REPLIES = {
    "NOSCRIPT No matching script. Please use EVAL.": Next.LOAD,
    "MOVED 3999 127.0.0.1:6381": Next.MOVED,
    "MOVED 3999 :6381": Next.MOVED,
    "ASK 3999 ::1:6381": Next.ASK,
    "TRYAGAIN Multiple keys request during rehashing of slot": Next.AGAIN,
    "LOADING Redis is loading the dataset in memory": Next.AWAY,
    "READONLY You can't write against a read only replica.": Next.AWAY,
    "CLUSTERDOWN The cluster is down": Next.AWAY,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": Next.AWAY,
    "BUSY Redis is busy running a script.": Next.AWAY,
    "OOM command not allowed when used memory > 'maxmemory'.": Next.AWAY,
    "MISCONF Redis is configured to save RDB snapshots": Next.AWAY,
    "NOREPLICAS Not enough good replicas to write.": Next.AWAY,
    "NOAUTH Authentication required.": Next.AWAY,
    "NOPERM User has no permissions to run the 'evalsha' command": Next.FAULT,
    "WRONGTYPE Operation against a key holding the wrong kind of value": Next.FAULT,
    "ERR user_script:1: attempt to index a nil value": Next.FAULT,
    "CROSSSLOT Keys in request don't hash to the same slot": Next.FAULT,
}


@pytest.mark.parametrize("reply", REPLIES)
def test_an_error_reply_means_one_thing(reply):
    reader = Reader(replyError=BaseParser.parse_error)
    reader.feed(f"-{reply}\r\n")
    error = reader.gets()
    assert isinstance(error, ERROR_REPLIES), "it would be taken for a lost connection"
    assert next_of(error) is REPLIES[reply]
    kind = StoreReplyError if REPLIES[reply] is Next.FAULT else StoreUnavailableError
    assert type(translate(error)) is kind
