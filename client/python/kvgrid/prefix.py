"""Names of a prompt's pages, by which a cluster finds sequences that begin with the same tokens. Token ids never reach it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

PAGE_TOKENS = 64
_PAGES_MAX = 16_384


def page_names(token_ids: Iterable[int], salt: bytes) -> bytes:
    """32 bytes for each whole page, of the first 16,384, as core/prefix_hash.h says."""
    ids = [int(each) for each in token_ids]
    names = [hashlib.sha256(b"kvgrid prefix 1" + salt).digest()]
    for page in range(min(len(ids) // PAGE_TOKENS, _PAGES_MAX)):
        tokens = ids[page * PAGE_TOKENS : (page + 1) * PAGE_TOKENS]
        names.append(hashlib.sha256(names[-1] + struct.pack(f"<{PAGE_TOKENS}q", *tokens)).digest())
    return b"".join(names[1:])
