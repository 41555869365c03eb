"""What kvgrid knows of a model: the geometry of its attention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kvgrid import _native


class HasToDict(Protocol):
    """A configuration of transformers, for one."""

    def to_dict(self) -> dict[str, Any]: ...


class ModelSpec:
    """The attention geometry of a model. It cannot be changed, and every spec that exists obeys the rules below.

    layers           1 to 1024
    query_heads      a multiple of kv_heads, at most 1024
    kv_heads         at least 1
    head_dim         32 to 256, a multiple of 8
    dtype            of q, k, v and o: "f32", "f16" or "bf16"
    kv_layer_of      for each layer the layer whose K and V it reads; its own index where it owns them. Also LCKV notation ("0_20_20s")
    window           tokens that a query sees, itself included; 0: all. A number for all layers, or one for each
    sinks            first tokens that stay visible in spite of the window; likewise
    scale            multiplies q.k; None: 1/sqrt(head_dim)
    logit_soft_cap   c * tanh(logit / c) before masking; 0: none
    kv_dtype         "as_model", or "fp8_e4m3": lossy, and for GPU workers
    deterministic    an output's bits depend on its own sequence only, not on what else a call computes; slower
    non_finite       what becomes of NaN and infinities in new k and v: "refuse" or "allow"

    Raises InvalidArgument, or Unsupported, which names the field, its value and the rule.
    """

    __slots__ = ("_native",)
    _native: _native.ModelSpec

    def __init__(
        self,
        *,
        layers: int,
        query_heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        name: str = "model",
        kv_layer_of: Sequence[int] | str | None = None,
        window: int | Sequence[int] = 0,
        sinks: int | Sequence[int] = 0,
        scale: float | None = None,
        logit_soft_cap: float = 0.0,
        kv_dtype: str = "as_model",
        deterministic: bool = False,
        non_finite: str = "refuse",
    ) -> None:
        fields: dict[str, Any] = {
            "name": name,
            "layers": layers,
            "query_heads": query_heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "dtype": dtype,
            "logit_soft_cap": logit_soft_cap,
            "kv_dtype": kv_dtype,
            "deterministic": deterministic,
            "non_finite": non_finite,
        }
        optional = {"kv_layer_of": kv_layer_of, "window": window, "sinks": sinks, "scale": scale}
        fields.update({field: _plain(value) for field, value in optional.items() if value is not None and value != 0})
        self._native = _native.ModelSpec.from_json(json.dumps(fields))

    @classmethod
    def _of(cls, native: _native.ModelSpec) -> ModelSpec:
        spec = cls.__new__(cls)
        spec._native = native
        return spec

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """From kvgrid's own JSON form, whose fields are those above; unknown ones are refused. `to_json` writes it."""
        return cls._of(_native.ModelSpec.from_json(text))

    @classmethod
    def from_hugging_face(
        cls, config: Mapping[str, Any] | HasToDict, *, dtype: str | None = None, name: str | None = None
    ) -> ModelSpec:
        """From a Hugging Face config: the dictionary of a config.json, or what transformers.AutoConfig gives.

        Llama (also SmolLM), Mistral, Qwen2, Qwen3, Gemma 2 and 3. Fields that would change the mathematics and are not understood are
        refused by name (Unsupported).

        dtype   in place of the config's own, e.g. that in which the model was loaded
        name    in place of the config's path or model type
        """
        fields = dict(config if isinstance(config, Mapping) else config.to_dict())
        if dtype is not None:
            fields["dtype"] = dtype
        said = name or fields.get("_name_or_path") or fields.get("name_or_path") or fields.get("model_type") or "model"
        text = json.dumps(fields, default=_shown)
        return cls._of(_native.ModelSpec.from_hugging_face(text, str(said)))

    def to_json(self) -> str:
        """As one line of kvgrid's own JSON form."""
        return self._native.to_json()

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def layers(self) -> int:
        return self._native.layers

    @property
    def query_heads(self) -> int:
        return self._native.query_heads

    @property
    def kv_heads(self) -> int:
        return self._native.kv_heads

    @property
    def head_dim(self) -> int:
        return self._native.head_dim

    @property
    def dtype(self) -> str:
        return self._native.dtype

    @property
    def kv_dtype(self) -> str:
        return self._native.kv_dtype

    @property
    def kv_layer_of(self) -> list[int]:
        """One for each layer."""
        return self._native.kv_layer_of

    @property
    def window(self) -> list[int]:
        """One for each layer; 0: all tokens."""
        return self._native.window

    @property
    def sinks(self) -> list[int]:
        """One for each layer."""
        return self._native.sinks

    @property
    def scale(self) -> float:
        return self._native.scale

    @property
    def logit_soft_cap(self) -> float:
        return self._native.logit_soft_cap

    @property
    def deterministic(self) -> bool:
        return self._native.deterministic

    @property
    def non_finite(self) -> str:
        return self._native.non_finite

    @property
    def token_bytes(self) -> int:
        """K and V of one token in all layers and heads, as they are stored."""
        return self._native.token_bytes

    def owns_kv(self, layer: int) -> bool:
        """Whether `layer` is called with k and v; otherwise it reads another layer's."""
        return self.kv_layer_of[layer] == layer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSpec) and self._native.same_as(other._native)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"ModelSpec.from_json({self.to_json()!r})"


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else list(value)


def _shown(value: Any) -> str:
    """What JSON has no form for: "torch.bfloat16" becomes "bfloat16"."""
    return str(value).removeprefix("torch.")
