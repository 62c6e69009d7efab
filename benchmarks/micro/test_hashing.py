"""The hash that names a bucket, and the bare loop that all of these numbers contain."""

from cpro._fast.hashing import siphash13

KEY = bytes(range(16))


def test_loop(measure):
    """One call of a builtin that does nothing: what the loop itself costs."""

    def run(calls, call=KEY.isascii):
        for _ in range(calls):
            call()

    measure(run)


def test_siphash13_of_a_user_id(measure):
    def run(calls, call=siphash13, user=b"100042"):
        for _ in range(calls):
            call(KEY, user)

    measure(run)


def test_siphash13_of_a_client_id(measure):
    def run(calls, call=siphash13, client=b"9336a229-2400-4ebc-8c50-000000000042"):
        for _ in range(calls):
            call(KEY, client)

    measure(run)
