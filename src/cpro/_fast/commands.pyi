"""Commands of Centrifugo's client protocol: what a client asks for, read as Centrifugo itself would read it."""

BAD_REQUEST: int
"""107: as `fault`, the command is answered by this error and not forwarded."""
MALFORMED: int
"""3501: as `fault`, Centrifugo would disconnect with this code; nothing behind the command is read by it either."""

class Command:
    """One command of a payload. Holds the payload. Texts are decoded when asked for, each time anew."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int:
        """Span in the payload: JSON the line without its LF, Protobuf the message with its length in front."""
    @property
    def fault(self) -> int:
        """0, BAD_REQUEST or MALFORMED. `id` may be relied on with BAD_REQUEST (and is > 0); nothing else with either."""
    @property
    def encoded(self) -> bytes | None:
        """What must be forwarded instead of the span, because the span is ambiguous. None: the span as it is."""
    @property
    def kind(self) -> str:
        """connect, ping, subscribe, unsubscribe, publish, map_publish, map_remove, presence, presence_stats, history,
        rpc, send, refresh, sub_refresh, track, untrack; `pong` for whatever has no id and isn't a send;
        `none` for an id without a request (like `ping`, Centrifugo disconnects 3501 for it). Interned."""
    @property
    def id(self) -> int:
        """0..2**32-1. 0 is good for pongs and sends only."""
    @property
    def channel(self) -> str:
        """Empty when there is none. Invalid UTF-8 reads as U+FFFD."""
    @property
    def method(self) -> str:
        """Of rpc."""
    @property
    def token(self) -> str:
        """Of connect, subscribe, refresh, sub_refresh."""
    @property
    def data_size(self) -> int:
        """Bytes of `data` as sent: publish, rpc, send, connect, subscribe. 0 when there is none."""
    @property
    def name(self) -> str:
        """Of connect; so are the next four."""
    @property
    def version(self) -> str: ...
    @property
    def flag(self) -> int:
        """Of connect and subscribe; signed 64 bits."""
    @property
    def has_headers(self) -> bool: ...
    @property
    def wants_dictionary(self) -> bool:
        """Asks for dictionary compression (bit 0 of `flag`) or names a `dict`: forward `without_dictionary`."""
    @property
    def type(self) -> int:
        """Of subscribe (0 stream, 1 map, 2 and 3 map presence, 4 shared poll), publish, sub_refresh; signed 32 bits."""
    @property
    def phase(self) -> int:
        """Of subscribe to a map: 2 state, 1 stream, 0 live."""
    @property
    def cursor(self) -> str:
        """Of subscribe: which page of a map's state is asked for; empty for the first."""
    @property
    def recover(self) -> bool:
        """Of subscribe."""
    @property
    def limit(self) -> int:
        """Of subscribe and history; signed 32 bits."""

def parse_commands(payload: bytes, protobuf: bool) -> list[Command]:
    """All commands of a message, in order; never empty. Never raises but MemoryError.

    Only the last one can be MALFORMED: what follows it isn't read, by us or by Centrifugo, which executes those before
    it and then disconnects 3501. (To have it do so in order, forward `malformed(protobuf)` in its place.)
    An empty payload is one MALFORMED command.

    No command gets past: what Centrifugo would execute is `kind`, on `channel`, or it has a `fault`. JSON by its rules:

    | in the command or in its request object | what becomes of it |
    |---|---|
    | exact keys, each once, one request | forwarded byte for byte |
    | unknown keys; `null` as a value | as Centrifugo: skipped, absent; forwarded byte for byte |
    | a known key in another ASCII case, or spelt with escapes, each once | `encoded`: the key is replaced by its name |
    | bytes behind the object other than white space (Centrifugo ignores them) | `encoded`: cut off |
    | a known key beyond ASCII (`ſ`, `K`) | BAD_REQUEST |
    | a known key twice, in whatever spelling | BAD_REQUEST |
    | two requests, neither of them null | BAD_REQUEST |
    | nested deeper than 512 levels; a number for `flag` beyond 18 digits | BAD_REQUEST |
    | any of these four with an id of 0, or an `id` given twice | MALFORMED |
    | not JSON; wrong type or range in a known field | MALFORMED, as Centrifugo |

    Below the request object (`data`, `headers`, `subs`, `since`, `tf`, `track`) nothing matters and all is kept.
    Protobuf: a request field twice, or two requests, is BAD_REQUEST; scalars: the last wins; unknown fields are
    skipped; a wrong wire type, length or tag is MALFORMED. All else is forwarded byte for byte.
    """

def build_payload(payload: bytes, commands: list[Command], protobuf: bool) -> bytes:
    """These commands of the payload (all or some, in order) as a payload to be forwarded; the same object where nothing
    is to be changed. Empty for no commands: send nothing then. Those with a fault must be left out: ValueError."""

def without_dictionary(command: Command) -> bytes:
    """A connect to be forwarded in place of its span: bit 0 of `flag` cleared and `dict` removed, the rest as it was.
    ValueError: no connect, or one with a fault."""

def malformed(protobuf: bool) -> bytes:
    """A command that Centrifugo surely answers by disconnect 3501."""
