"""Commands of Centrifugo's client protocol: what a client asks for, read as Centrifugo itself would read it."""

from cpro._fast.command import Command

BAD_REQUEST: int
"""107: as `fault`, the command is answered by this error and not forwarded."""
MALFORMED: int
"""3501: as `fault`, Centrifugo would disconnect with this code; nothing behind the command is read by it either."""

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
    | a known key beyond ASCII (U+017F for `s`, U+212A for `k`) | BAD_REQUEST |
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
