class Command:
    """One command of a payload. Holds the payload. Texts are decoded when asked for, each time anew."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int:
        """Span in the payload: JSON the line without its LF, Protobuf the message with its length in front."""
    @property
    def fault(self) -> int:
        """0, or BAD_REQUEST or MALFORMED of `commands`. With BAD_REQUEST `id` is good (and > 0), nothing else is."""
    @property
    def encoded(self) -> bytes | None:
        """What must be forwarded instead of the span, because the span is ambiguous. None: the span as it is."""
    @property
    def kind(self) -> str:
        """connect, ping, subscribe, unsubscribe, publish, map_publish, map_remove, presence, presence_stats, history,
        rpc, send, refresh, sub_refresh, track, untrack; `pong` for whatever has no id and isn't a send;
        `none` for an id without a request (like `ping`, Centrifugo disconnects 3501 for it). Interned.

        track and untrack are what `type` says. Centrifugo heeds it where the channel is subscribed to as a shared poll
        (`type` 4) and takes it for a sub_refresh elsewhere: so must the door, or limits are got around by it."""
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
