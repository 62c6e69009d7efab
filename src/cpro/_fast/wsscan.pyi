from cpro._fast.wsframe import Event

class ServerScan:
    """Follows what Centrifugo sends to a client, without copying what merely passes.

    The door writes the fed data on to the client as they are, and reads here where whole messages end and what they
    say. While it holds (as it does from the start, until the connect reply has been judged) the door writes nothing
    on its own: it writes the `raw` of each event, or something else instead.

    Passing on, a message is told of only if some line (JSON) or delimited reply (Protobuf) of it may be something else
    than a push of a publication, join, leave or message: replies, pings, pushes of (un)subscribe, disconnect etc.;
    all of its payload is then given out. So are compressed messages, and close and ping frames; pongs while holding.
    """

    def __init__(
        self, protobuf: bool, max_message_bytes: int, holds: bool = True, allow_compressed: bool = False
    ) -> None:
        """`max_message_bytes`: of a longer message that passes only so many bytes are given out (`parse_replies` finds
        the id in them, and calls the reply `other`); while holding, a longer message is a fault."""
    def feed(self, data: bytes) -> list[Event] | None:
        """What `data` completes and the door should know, in order; None when there is nothing.

        A server that breaks RFC 6455, or the limit while holding: `fault` is set, and everything fed from then on is
        passed over; the door drops both legs. Never raises but MemoryError."""
    @property
    def boundary(self) -> int:
        """Offset in the data fed last behind the last whole *message*, or close, ping or pong frame, that ended in
        them with no message under way: there the door may insert frames of its own. -1: nowhere.

        0: the data began between messages, and none has ended in them since. len(data): insert behind them.
        Of no use while holding: there the door writes frames of its own between the `raw` of one event and the next,
        or behind the last one; they come in whole messages, and a control frame before the message it interrupts."""
    @property
    def is_between_messages(self) -> bool:
        """The data fed last ended with a whole message: frames of the door's own may follow at once."""
    @property
    def holds(self) -> bool: ...
    def release(self) -> bytes:
        """Stop holding. Returns the bytes of the frames under way, to be written at once, before anything else."""
    @property
    def fault(self) -> str:
        """What the server did wrong, for a log; empty while all is well."""
