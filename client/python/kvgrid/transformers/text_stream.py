"""Endless text through a model: a window of the newest tokens and some first ones (sinks), at constant memory and constant cost per token.

    with kvgrid.transformers.TextStream(attached, window=1024, sinks=4) as stream:
        for ids in text:
            logits = stream.feed(ids)

Pages go back to the grid as they leave the window. Positions are chosen by name, and both are honest: no two tokens of the window share one, and a
token is as far from another as it is in the text.

    absolute         A token keeps its place in the text. The sinks fall behind, beyond any distance that the model was trained on.
    cache_relative   Distances are those between places in the cache: [sinks | window]. The sinks are rotated on as the window moves, so that the newest
                     token is never farther from anything than window + sinks. Keys of the window need that only once in a long while, to keep the
                     numbers of positions small: rotary embeddings know differences alone.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch

from kvgrid.errors import InvalidArgument, Unsupported, WrongState
from kvgrid.transformers.versions import CACHE_ARGUMENT

if TYPE_CHECKING:
    from kvgrid.transformers.attachment import Attachment


class TextStream:
    """One text of an attached model. See above.

    window      tokens that a query sees, itself included, beside the sinks
    sinks       first tokens of the text that stay visible
    positions   "absolute" or "cache_relative"
    rebase_at   cache_relative: the position that none reaches; keys of the window are rotated back before. None: the larger of what the model was trained on
                and twice the window
    Raises      InvalidArgument, Unsupported (cache_relative, where the model's positions are not rotary, or change with the length)
    """

    def __init__(
        self,
        attached: Attachment,
        *,
        window: int,
        sinks: int = 0,
        positions: Literal["absolute", "cache_relative"] = "cache_relative",
        rebase_at: int | None = None,
    ) -> None:
        if window < 1 or sinks < 0:
            raise InvalidArgument(f"window is {window} and sinks {sinks}: must be at least 1, and 0")
        if positions not in ("absolute", "cache_relative"):
            raise InvalidArgument(f"positions is {positions!r}: must be 'absolute' or 'cache_relative'")
        self.window, self.sinks, self.positions = window, sinks, positions
        self.length = 0  # of the text so far
        self._attached = attached
        self._cache = attached.cache()
        row = self._cache._rows_for(1)[0]
        row.sequence.set_window(window, sinks)
        self._row = row
        self._base = 0  # a token at place t is rotated as one at t - base
        self._sink_shift = 0  # how far the sinks are rotated beyond their own places
        self._sink_rows: list[tuple[torch.Tensor, torch.Tensor]] = []  # [kv layer]: k and v as they came
        if positions == "cache_relative":
            self._frequencies = _frequencies_of(attached)
            trained = int(getattr(attached.model.config.get_text_config(), "max_position_embeddings", 0) or 0)
            self._rebase_at = rebase_at or max(trained, 2 * (window + sinks))
            if self._rebase_at <= window + sinks:
                raise InvalidArgument(f"rebase_at is {rebase_at}: must be more than window and sinks together, {window + sinks}")

    @torch.inference_mode()
    def feed(self, token_ids: Any) -> torch.Tensor:
        """The model's logits [tokens, vocabulary] after each of these tokens, which follow those before them.

        token_ids   [tokens], a list or a tensor; none: [0, vocabulary]. More than the window are taken in pieces. With cache_relative positions a
                    piece of several tokens has the sinks where they are for its last one
        Cost        one forward over the new tokens for each piece; cache_relative with sinks: and their keys, to every layer
        """
        model = self._attached.model
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=model.device).reshape(-1)
        if not len(ids):
            return torch.empty(0, model.config.get_text_config().vocab_size, device=model.device)
        if self._row.length != self.length:
            raise WrongState("the stream's cache was used by another: it has other tokens")
        return torch.cat([self._feed_piece(piece) for piece in ids.split(self.window)])

    def _feed_piece(self, ids: torch.Tensor) -> torch.Tensor:
        if self.positions == "cache_relative":
            self._make_room_for(len(ids))
        first = self.length - self._base
        places = torch.arange(first, first + len(ids), device=ids.device).unsqueeze(0)
        named: dict[str, Any] = {CACHE_ARGUMENT: self._cache, "use_cache": True, "position_ids": places}
        logits = self._attached.model(ids.unsqueeze(0), **named).logits[0]
        self._row.tokens = None  # their number does not grow here
        self.length += len(ids)
        return logits

    # ---- cache_relative

    def _make_room_for(self, count: int) -> None:
        if self.length + count - self._base > self._rebase_at:
            self._rebase()
        shift = max(0, self.length + count - self.window - self.sinks) - self._base
        if self.sinks and self.length >= self.sinks and shift != self._sink_shift and shift + self._base > 0:
            self._move_sinks(shift)

    def _move_sinks(self, shift: int) -> None:
        layers = self._kv_layers()
        if not self._sink_rows:
            self._sink_rows = [self._read(layer, 0, self.sinks) for layer in layers]
        for layer, (keys, values) in zip(layers, self._sink_rows, strict=True):
            self._row.sequence.rewrite_kv(layer, 0, _rotated(keys, shift, self._frequencies), values)
        self._sink_shift = shift

    def _rebase(self) -> None:
        """The window's keys as if the text had begun `window + sinks` tokens ago."""
        base = max(0, self.length - self.window - self.sinks)
        first = max(self.sinks, self.length - self.window + 1)
        for layer in self._kv_layers():
            keys, values = self._read(layer, first, self.length - first)
            self._row.sequence.rewrite_kv(layer, first, _rotated(keys, self._base - base, self._frequencies), values)
        self._base = base

    def _kv_layers(self) -> list[int]:
        spec = self._attached.spec
        return [layer for layer in range(spec.layers) if spec.owns_kv(layer)]

    def _read(self, layer: int, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = self._row.sequence.read_kv(layer, first, count)
        return torch.from_dlpack(k), torch.from_dlpack(v)

    # ---- its end

    def close(self) -> None:
        """Gives its pages back. Again: nothing."""
        self._cache.close()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _frequencies_of(attached: Attachment) -> torch.Tensor:
    """Radians per position [head_dim / 2], fp64, on the CPU."""
    rotary = getattr(attached._decoder, "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    kind = getattr(rotary, "rope_type", "default")
    if frequencies is None or kind not in ("default", "linear", "llama3", "yarn") or 2 * len(frequencies) != attached.spec.head_dim:
        raise Unsupported(
            f"cache_relative positions: the model's ({kind if rotary is not None else 'not rotary'}) are not one set of rotary frequencies over whole heads "
            "that stay as they are; take positions='absolute'"
        )
    return frequencies.double().cpu()


def _rotated(keys: torch.Tensor, positions: int, frequencies: torch.Tensor) -> torch.Tensor:
    """keys [tokens, heads, head_dim], whose pairs are (i, i + head_dim / 2), as if each were so many positions later."""
    angles = positions * frequencies
    cos, sin = angles.cos().to(torch.float32), angles.sin().to(torch.float32)
    first, second = keys.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(keys.dtype)
