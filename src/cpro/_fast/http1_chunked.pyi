class ChunkDecoder:
    """Decodes one chunked body; for the parsers of `http1`, it has no methods for Python."""

    def __init__(self, max_body: int, budget: int) -> None: ...
