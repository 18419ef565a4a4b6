"""The version of this package; caches and journals of another one are refused."""

__version__ = "0.2.0"
