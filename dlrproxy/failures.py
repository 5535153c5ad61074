"""What went wrong, out of the groups in which tasks report it."""

from collections.abc import Sequence


def leaves(error: BaseException) -> Sequence[BaseException]:
    """The errors themselves, however deep in groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
