"""Models of Hugging Face transformers whose KV cache lies in a grid.

    attached = kvgrid.transformers.attach(model, client)
    with attached.cache() as cache:
        tokens = model.generate(ids, past_key_values=cache, max_new_tokens=200)

The model's keys and values go to the grid, layer by layer, and attention is computed there; the process keeps none. One forward of the model
is one step of the grid: it adds its tokens to all rows of the batch, or to none. Whatever would change the mathematics and is not supported
raises; so does a model that has kvgrid's attention but another cache, or the reverse.

transformers 4.56 to 5.24. From 5.24 on it calls the argument `cache=`; the name of old works with a warning.
"""

from kvgrid.transformers.attachment import Attachment, attach
from kvgrid.transformers.cache import GridCache
from kvgrid.transformers.text_stream import TextStream

__all__ = ["Attachment", "GridCache", "TextStream", "attach"]
