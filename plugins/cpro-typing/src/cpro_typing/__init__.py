"""Who is typing: clients call an RPC with a channel, and everybody in it gets a publication."""

from cpro_typing.plugin import TypingPlugin

plugin = TypingPlugin()
