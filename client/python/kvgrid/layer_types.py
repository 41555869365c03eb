"""LCKV's notation `layer_types`: which layer's KV each layer reads, "0_20_20_..._21", one item for each layer, with `s` for a sliding window.

    kvgrid.ModelSpec(layers=22, kv_layer_of=kvgrid.layer_types.lckv(22, warmup=2), ...)

Here are the arrangements that its papers name, for any number of layers; ARRANGEMENTS has them by name. ModelSpec reads the notation, and
`plan` says how a prompt is computed where layers read a later layer's KV. Layer-condensed KV cache: arXiv 2405.10637; the systematic study,
from which the words pizza, sandwich and lasagna are: arXiv 2410.14442.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kvgrid.errors import InvalidArgument

_ITEM = re.compile(r"([0-9]+)(s?)")


def parse(notation: str) -> list[tuple[int, bool]]:
    """For each layer the layer whose KV it reads, and whether it slides."""
    items = notation.split("_")
    found = []
    for number, item in enumerate(items):
        match = _ITEM.fullmatch(item)
        if not match or int(match[1]) >= len(items):
            raise InvalidArgument(
                f"layer_types item {number} is {item!r}: must be one of the {len(items)} layers, 0 to {len(items) - 1}, then `s` where it slides"
            )
        found.append((int(match[1]), bool(match[2])))
    return found


def kv_layers(notation: str) -> list[int]:
    """The layers whose KV is stored: those that are read."""
    return sorted({target for target, _ in parse(notation)})


# ---- arrangements


def standard(layers: int) -> str:
    """Every layer its own."""
    return _joined(range(layers))


def sandwich(layers: int, kv: int, target: str = "top") -> str:
    """`kv` layers of KV: half of the others first (one more, where they are odd), half last, and all between read one of their block."""
    _check(layers, kv, "sandwich")
    below, above = -(-(kv - 1) // 2), (kv - 1) // 2
    return _joined(_one_block(layers, below, layers - above, target))


def lckv(layers: int, warmup: int = 2) -> str:
    """LCKV with w = `warmup` layers that keep their KV: a sandwich whose block reads its top."""
    return sandwich(layers, warmup + 1)


def pizza(layers: int, kv: int, target: str = "bottom") -> str:
    """The first kv - 1 layers keep their KV, all others read one of theirs."""
    _check(layers, kv, "pizza")
    return _joined(_one_block(layers, kv - 1, layers, target))


def yoco(layers: int) -> str:
    """You only cache once: a lower half that slides, an upper half that reads its first layer."""
    _check(layers, 2, "yoco")
    half = layers // 2
    return _joined([f"{layer}s" for layer in range(half)] + [half] * (layers - half))


def lasagna(layers: int, kv: int, target: str = "bottom") -> str:
    """`kv` groups of consecutive layers, as equal as can be, each reading one of its own."""
    _check(layers, kv, "lasagna")
    borders = [group * layers // kv for group in range(kv + 1)]
    return _joined(_target(a, b, target) for a, b in zip(borders, borders[1:]) for _ in range(a, b))


def cla(layers: int, share: int = 2) -> str:
    """Cross-layer attention: each `share` consecutive layers read the first of them."""
    _check(layers, 1, "cla")
    if share < 1:
        raise InvalidArgument(f"share is {share}: must be at least 1")
    return _joined(layer // share * share for layer in range(layers))


def mix_attention(layers: int) -> str:
    """MixAttention's pairs: every sixth layer sees all tokens, two by two with one KV, and between them groups of two and three slide."""
    _check(layers, 1, "mix_attention")

    def item(layer: int) -> str:
        period, place = layer // 6 * 6, layer % 6
        if place == 0:
            return str(layer // 12 * 12)
        joins_the_pair = place < 3 or (place == 3 and layer == layers - 1)  # a last layer alone makes no group
        return f"{period + (1 if joins_the_pair else 3)}s"

    return _joined(item(layer) for layer in range(layers))


ARRANGEMENTS: dict[str, Callable[[int], str]] = {
    "standard": standard,
    "LCKV w=2": lckv,
    "LCKV w=10": lambda layers: lckv(layers, 10),
    "sandwich-middle": lambda layers: sandwich(layers, 3, "middle"),
    "CLA-2": cla,
    "YOCO": yoco,
    "MixAttention": mix_attention,
}


def _joined(items: Iterable[int | str]) -> str:
    return "_".join(str(item) for item in items)


def _check(layers: int, kv: int, name: str) -> None:
    if not 1 <= kv <= layers:
        raise InvalidArgument(f"{name} of {layers} layers with {kv} layers of KV: must be 1 to the number of layers")


def _one_block(layers: int, first: int, end: int, target: str) -> list[int]:
    return [*range(first), *[_target(first, end, target)] * (end - first), *range(end, layers)]


def _target(first: int, end: int, target: str) -> int:
    """Of the block of layers first .. end - 1."""
    if target not in ("bottom", "middle", "top"):
        raise InvalidArgument(f"target is {target!r}: must be 'bottom', 'middle' or 'top'")
    return {"bottom": first, "middle": (first + end - 1) // 2, "top": end - 1}[target]


# ---- prompts


class Slice(NamedTuple):
    """Layers first .. end - 1, computed `passes` times over all tokens before the next slice."""

    first: int
    end: int
    passes: int
    targets: tuple[int, ...] = ()  # layers of it whose KV an earlier one reads, as the pass before has left it; zeros at first


def plan(notation: str, passes: int) -> list[Slice]:
    """How a prompt is computed in parallel: layers that read no later one once, the others in slices of several passes.

    A slice goes from a layer that reads a later one's KV up to the highest layer that its layers read. Its result is that of token by token
    after as many passes as there are tokens; LCKV's papers take m + b = 7 + 2 passes for any number.
    """
    targets = [target for target, _ in parse(notation)]

    def later(first: int, end: int) -> tuple[int, ...]:
        return tuple(sorted({targets[layer] for layer in range(first, end) if targets[layer] > layer}))

    slices: list[Slice] = []
    first = layer = 0
    while layer < len(targets):
        if targets[layer] <= layer:
            layer += 1
            continue
        if first < layer:
            slices.append(Slice(first, layer, 1))
        first, top = layer, targets[layer]
        while layer <= top:
            top = max(top, targets[layer])
            layer += 1
        slices.append(Slice(first, layer, passes, later(first, layer)))
        first = layer
    if first < layer:
        slices.append(Slice(first, layer, 1))
    return slices
