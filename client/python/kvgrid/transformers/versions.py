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


# Until 5.23 `past_key_values`; the old name is accepted later, with a warning.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(masking_utils.create_causal_mask).parameters else "past_key_values"

# The argument of Cache.crop was the length to keep, or a negative number of tokens to remove; then the latter alone.
CROP_TAKES_LENGTH = "max_length" in inspect.signature(Cache.crop).parameters
