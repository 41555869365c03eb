"""A model of transformers and a grid, brought together."""

from __future__ import annotations

import weakref
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from kvgrid.client import Client
from kvgrid.errors import InvalidArgument, Unsupported
from kvgrid.local_cluster import LocalCluster
from kvgrid.model_spec import ModelSpec
from kvgrid.prefix import PAGE_TOKENS
from kvgrid.transformers import attention
from kvgrid.transformers.cache import GridCache
from kvgrid.transformers.forward import Forward
from kvgrid.transformers.layers import GridLayer
from kvgrid.transformers.prefixes import Prefixes
from kvgrid.transformers.row import Row
from kvgrid.transformers.versions import CACHE_ARGUMENT, check_signatures, check_version
from kvgrid.transformers.weights import fingerprint


class Attachment:
    """A model whose attention is computed in a grid, made by `attach`. As a context manager it is detached at the end of the block.

    client     the connection
    model      the model of transformers
    grid_model what the cluster knows of it
    spec       its geometry
    """

    def __init__(self, model: PreTrainedModel, client: Client, grid_model: Any, tenant: str, prefixes_max: int) -> None:
        self.model = model
        self.client = client
        self.grid_model = grid_model
        self.spec: ModelSpec = grid_model.spec
        self.tenant = tenant
        self.prefixes = Prefixes(prefixes_max, slides=any(self.spec.window))
        self._caches: weakref.WeakSet[GridCache] = weakref.WeakSet()
        self._config = model.config.get_text_config()
        self._implementation_before = self._config._attn_implementation
        attention.register()
        model.set_attn_implementation(attention.NAME)
        self._decoder = module = _decoder_of(model)
        self._hooks = [
            module.register_forward_pre_hook(self._before, with_kwargs=True),
            module.register_forward_hook(self._after, always_call=True),
        ]

    def _before(self, module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        token_ids = named.get("input_ids", arguments[0] if arguments else None)
        Forward.begin(self, token_ids)

    def _after(self, module: torch.nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        forward = Forward.take()
        if forward is not None:
            forward.end(succeeded=output is not None)  # torch calls it with None when the forward raised

    @property
    def attends(self) -> bool:
        """Whether the model's attention is kvgrid's."""
        return self._config._attn_implementation == attention.NAME and bool(self._hooks)

    def cache(self, token_ids: Any = None, *, tenant: str | None = None) -> GridCache:
        """A new cache, to be passed as past_key_values; its sequences are opened by the first forward.

        token_ids   of one prompt, [tokens] or [1, tokens], a tensor or a list: the cache begins with what a kept sequence of the same
                    tenant has of it (GridCache.keep), less the last token: one of this process, or one of the cluster where that has whole
                    pages more; get_seq_length() says how much that is
        tenant      to whom its sequences are accounted; None: that of `attach`
        """
        cache = GridCache(self, self.tenant if tenant is None else tenant)
        self._caches.add(cache)
        if token_ids is not None:
            cache._start_with(self._row_for(one_row_of(token_ids), cache.tenant))
        return cache

    def _row_for(self, tokens: list[int], tenant: str) -> Row | None:
        mine = self.prefixes.fork_of(tokens, tenant)
        length = mine.length if mine else 0
        if length >= (len(tokens) - 1) // PAGE_TOKENS * PAGE_TOKENS:
            return mine
        found = self.grid_model.open(tenant=tenant, token_ids=tokens, prefix_salt=self.prefix_salt)
        if found.prefix_length <= length:
            found.close()
            return mine
        if mine:
            mine.close()
        return Row(found, found.prefix_length, tokens[: found.prefix_length])

    @cached_property
    def prefix_salt(self) -> bytes:
        """What the cluster keeps is found by attachments with the same: the same configuration and weights, as they are when it is first needed."""
        return fingerprint(self.model)

    @torch.inference_mode()
    def prefill(
        self, cache: GridCache, token_ids: torch.Tensor, *, attention_mask: torch.Tensor | None = None, chunk_tokens: int = 512
    ) -> None:
        """Puts all tokens but the last into the cache, those that are not there yet, in chunks; then `generate` goes on.

        token_ids        [rows, columns], from the first column on
        attention_mask   [rows, columns]: 1 where a column is a token; None: everywhere
        chunk_tokens     columns of one forward, which bounds the model's memory for activations
        """
        columns = token_ids.shape[1]
        positions = None
        if attention_mask is not None:
            positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        begin = cache.get_seq_length()
        while begin < columns - 1:
            end = min(begin + chunk_tokens, columns - 1)
            named: dict[str, Any] = {CACHE_ARGUMENT: cache, "use_cache": True}
            if positions is not None and attention_mask is not None:
                named |= {"attention_mask": attention_mask[:, :end], "position_ids": positions[:, begin:end]}
            self._decoder(token_ids[:, begin:end], **named)
            begin = end

    def detach(self) -> None:
        """Closes its caches and the sequences that this process has kept, and gives the model its own attention back. What the cluster has kept
        stays for others. Again: nothing."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._config._attn_implementation == attention.NAME:
            self.model.set_attn_implementation(self._implementation_before)
        for cache in list(self._caches):
            cache.close()
        self.prefixes.clear()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def attach(
    model: PreTrainedModel,
    grid: Client | LocalCluster,
    *,
    name: str | None = None,
    tenant: str = "default",
    pool_bytes_per_worker: int = 0,
    prefixes_max: int = 16,
) -> Attachment:
    """Registers a model with the cluster and sets its attention to the grid's, until Attachment.detach.

    model                   Llama (also SmolLM), Mistral, Qwen2, Qwen3, Gemma 2 and 3, on the CPU or on GPUs of CUDA's
    grid                    a connected client, or a cluster of kvgrid.local
    name                    of the model in the cluster; None: the last part of its path, or its type. One name is one geometry
    tenant                  to whom its sequences are accounted
    pool_bytes_per_worker   0: all memory of each worker that no model has yet
    prefixes_max            sequences that GridCache.keep keeps in this process at most
    Raises                  Unsupported: a configuration or a device that the grid does not serve, or a version of transformers. What
                            Client.register raises
    """
    check_version()
    check_signatures(GridCache, Cache)
    check_signatures(GridLayer, CacheLayerMixin)
    if model.device.type not in ("cpu", "cuda"):
        raise Unsupported(f"the model is on {model.device}: must be on the CPU or on a GPU of CUDA's, from where tensors go to the grid")
    if getattr(model.config.get_text_config(), "_attn_implementation", None) == attention.NAME:
        raise InvalidArgument("this model is attached already: detach() comes first")
    dtype = str(model.dtype).removeprefix("torch.")
    said = name or str(model.config.name_or_path or "").rstrip("/").rpartition("/")[2] or model.config.model_type
    spec = ModelSpec.from_hugging_face(model.config, dtype=dtype, name=said)
    client = grid.connect() if isinstance(grid, LocalCluster) else grid
    registered = client.register(spec, pool_bytes_per_worker=pool_bytes_per_worker)
    return Attachment(model, client, registered, tenant, prefixes_max)


def _decoder_of(model: PreTrainedModel) -> torch.nn.Module:
    """The module that runs all layers, which every way of calling the model goes through."""
    for module in model.modules():
        if hasattr(module, "embed_tokens") and isinstance(getattr(module, "layers", None), torch.nn.ModuleList):
            return module
    raise Unsupported(f"{type(model).__name__} has no decoder that is known: a module with embed_tokens and layers")


def one_row_of(token_ids: Any) -> list[int]:
    """[tokens] or [1, tokens], a tensor or a list, as a list."""
    tokens = token_ids.tolist() if isinstance(token_ids, torch.Tensor) else list(token_ids)
    if tokens and isinstance(tokens[0], list):
        if len(tokens) != 1:
            raise InvalidArgument(f"token_ids has {len(tokens)} rows: must have one, for rows of a batch begin together")
        tokens = tokens[0]
    return tokens
