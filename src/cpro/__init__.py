"""cpro: throttling, analytics and user status beside an unchanged Centrifugo."""

from importlib.metadata import version

__version__ = version("cpro")
