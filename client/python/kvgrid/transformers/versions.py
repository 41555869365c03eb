"""What differs between the versions of transformers that are supported: 4.56 to 5.24."""

from __future__ import annotations

import inspect

import transformers
from transformers import masking_utils
from transformers.cache_utils import Cache

from kvgrid.errors import Unsupported

_OLDEST = (4, 56)


def check_version() -> None:
    """Raises Unsupported where transformers is too old to give its cache and its masks away."""
    found = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if found < _OLDEST:
        raise Unsupported(f"transformers is {transformers.__version__}: must be 4.56 or later")


def check_signatures(ours: type, theirs: type) -> None:
    """Raises Unsupported where a method of `theirs`, which this version of transformers calls, takes arguments that `ours` in its place does not."""
    for name, method in inspect.getmembers(theirs, inspect.isfunction):
        mine = getattr(ours, name)
        if mine is method or name.startswith("__"):
            continue
        positional = [each for each in inspect.signature(method).parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
        try:
            inspect.signature(mine).bind(*positional)
        except TypeError as error:
            raise Unsupported(
                f"transformers {transformers.__version__} calls {theirs.__name__}.{name}{inspect.signature(method)}, which kvgrid does not know ({error}); "
                "take a version that docs/python.md names"
            ) from None


# Until 5.23 `past_key_values`; the old name is accepted later, with a warning.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(masking_utils.create_causal_mask).parameters else "past_key_values"

# The argument of Cache.crop was the length to keep, or a negative number of tokens to remove; then the latter alone.
CROP_TAKES_LENGTH = "max_length" in inspect.signature(Cache.crop).parameters
