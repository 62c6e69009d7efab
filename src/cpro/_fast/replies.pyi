"""Replies and pushes of Centrifugo's client protocol: what its server says, as far as bookkeeping needs it."""

class Reply:
    """One reply or push. Holds the payload it came in. Texts are decoded when asked for, each time anew."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int:
        """Span in the payload: JSON the line without its LF, Protobuf the message with its length in front."""
    @property
    def kind(self) -> str:
        """Which result: connect, subscribe, unsubscribe, publish, presence, presence_stats, history, rpc, refresh,
        sub_refresh; `error`; `ping` (empty); of pushes: push_unsubscribe, push_subscribe, push_connect,
        push_disconnect, push_refresh; `other` for anything else with or without an id. Interned."""
    @property
    def id(self) -> int:
        """Of the command that is answered; 0 for pushes and pings."""
    @property
    def code(self) -> int:
        """Of an error; of pushes of unsubscribe and disconnect."""
    @property
    def reason(self) -> str:
        """Message of an error; reason of pushes of unsubscribe and disconnect."""
    @property
    def temporary(self) -> bool:
        """Of an error."""
    @property
    def channel(self) -> str:
        """Of pushes; empty where the push goes by `number`."""
    @property
    def number(self) -> int:
        """Numeric alias of a channel: `id` of a subscribe result or of a push; 0 when there is none."""
    @property
    def client(self) -> str:
        """Of connect; so are the next six."""
    @property
    def version(self) -> str:
        """Like `6.9.1 OSS`."""
    @property
    def data(self) -> bytes:
        """The application's, as it stands there; empty when there is none."""
    @property
    def session(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def ping(self) -> int:
        """Seconds between the server's pings; 0: none."""
    @property
    def pong(self) -> bool:
        """The client must answer them."""
    @property
    def expires(self) -> bool:
        """Of connect, subscribe, refresh, sub_refresh."""
    @property
    def ttl(self) -> int:
        """Seconds; of the same."""
    @property
    def flag(self) -> int:
        """Of connect."""
    @property
    def subs(self) -> list[str]:
        """Of connect: channels that the server has subscribed the client to."""
    @property
    def type(self) -> int:
        """Of subscribe; so are the next two."""
    @property
    def phase(self) -> int: ...
    @property
    def cursor(self) -> str:
        """Names the next page; empty on the last."""

def parse_replies(payload: bytes, protobuf: bool) -> list[Reply]:
    """What a message says, in order, without pushes of publications, joins, leaves and messages.

    What can't be read to its end (cut off by a limit, newer, broken) is `other`, with the `id` where that came before.
    Keys are those that Centrifugo writes, in their exact spelling. Never raises but MemoryError."""

def build_error_reply(command_id: int, code: int, message: str, temporary: bool, protobuf: bool) -> bytes:
    """JSON: one line without its LF; Protobuf: with its length in front. ValueError: an id or code beyond 32 bits."""

def build_connect(
    reply: Reply, session: str | None = None, node: str | None = None, data: bytes | None = None
) -> bytes:
    """A connect reply to be sent in place of its span, with session, node and data replaced where given (and where it
    has them; empty data: none), the rest as it was. ValueError: no connect result."""
