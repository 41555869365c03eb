"""What a call raises when it fails: one class for each code of the cluster, each saying what the caller does about it."""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """A call that failed. `code` is the cluster's name for it ("no_room"), `message` says what, why, and what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(Error):
    """The request itself is wrong: mend it, the same will be refused again."""

    code = "invalid_argument"


class NotFound(Error):
    """The model, sequence or step does not exist (any more)."""

    code = "not_found"


class AlreadyExists(Error):
    """The id or name is taken: use what is there or choose another."""

    code = "already_exists"


class NoRoom(Error):
    """Pages are short: close or truncate sequences, or send fewer tokens. Nothing has changed."""

    code = "no_room"


class Busy(Error):
    """Another step holds the sequence, or a queue is full: wait for it, then try again."""

    code = "busy"


class WrongState(Error):
    """Not now: the message says what has to come first, or came already. Also raised by what is closed."""

    code = "wrong_state"


class StaleGeneration(Error):
    """The membership has changed: try again."""

    code = "stale_generation"


class DeadlineExceeded(Error, TimeoutError):
    """No answer in time: it may or may not have happened. Begin again from the sequence's length."""

    code = "deadline_exceeded"


class Unavailable(Error, ConnectionError):
    """The other side could not be reached, or is not ready yet: try again later."""

    code = "unavailable"


class PeerLost(Error):
    """A worker of the grid died: its sequences are gone, and can be opened again when the next grid is there."""

    code = "peer_lost"


class Unsupported(Error):
    """Understood, but not built: the message names what is supported."""

    code = "unsupported"


class Corrupt(Error):
    """Bytes do not say what they should: do not trust this peer."""

    code = "corrupt"


class Internal(Error):
    """A defect in kvgrid: report it with the message."""

    code = "internal"


_BY_CODE = {kind.code: kind for kind in Error.__subclasses__()}


def error_for(code: str, message: str) -> Error:
    """The exception of a code."""
    return _BY_CODE[code](message)
