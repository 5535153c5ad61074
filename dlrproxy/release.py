"""Which release of the program this is: told to peers and to people, and decided by nowhere (docs/upgrading.md)."""

from importlib.metadata import version
from typing import Final

RELEASE: Final = version("dlrproxy")
