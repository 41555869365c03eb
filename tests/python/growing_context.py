"""A context that grows in the cluster and in numpy at once, so that every output can be compared with the formula in fp64.

Tolerance. The kernels compute in f32 (unit roundoff 2^-24) and may round weights to the dtype of V. A logit is then off by at most
delta = head_dim * 2^-24 * max |q|.|k| * scale, a weight by the factor exp(+-2 delta) and one rounding, and o, an average of rows of V, by
(2 delta + 3 u) max |v|, where u is the unit roundoff of the dtype: of a weight, of the sum that normalises, and of o itself.
"""

import numpy

UNIT_ROUNDOFF = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}


def to_bf16_bits(values):
    """float32 to the bits of bfloat16, rounded to nearest even."""
    bits = values.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def from_bf16_bits(bits):
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def as_numbers(tensor, dtype):
    return (from_bf16_bits(tensor) if dtype == "bf16" else tensor).astype(numpy.float64)


def draw(random, shape, dtype):
    values = random.standard_normal(shape).astype(numpy.float32)
    return to_bf16_bits(values) if dtype == "bf16" else values.astype({"f32": numpy.float32, "f16": numpy.float16}[dtype])


def attend(q, k, v, first, window, sinks, spec):
    """q [n, query_heads, dim] of tokens first .. first + n, k and v [first + n, kv_heads, dim], all fp64: o and its tolerance."""
    group = spec.query_heads // spec.kv_heads
    o = numpy.empty_like(q)
    logits_max = 0.0
    for token in range(q.shape[0]):
        place = first + token
        seen = [t for t in range(place + 1) if not window or place - t < window or t < sinks]
        for head in range(spec.query_heads):
            keys, values = k[seen, head // group], v[seen, head // group]
            logits = spec.scale * (keys @ q[token, head])
            logits_max = max(logits_max, spec.scale * (abs(keys) @ abs(q[token, head])).max())
            weights = numpy.exp(logits - logits.max())
            o[token, head] = weights @ values / weights.sum()
    delta = spec.head_dim * 2.0**-24 * logits_max
    return o, (2 * delta + 3 * UNIT_ROUNDOFF[spec.dtype]) * abs(v).max()


class GrowingContext:
    """A sequence, and its k and v of each layer as numpy has them."""

    def __init__(self, sequence, spec, random):
        self.sequence = sequence
        self.spec = spec
        self.random = random
        empty = numpy.zeros((0, spec.kv_heads, spec.head_dim))
        self.k = [empty] * spec.layers
        self.v = [empty] * spec.layers
        self.window, self.sinks = 0, 0

    @property
    def length(self):
        return self.k[0].shape[0]

    def fork(self):
        other = GrowingContext(self.sequence.fork(), self.spec, self.random)
        other.k, other.v = list(self.k), list(self.v)
        return other

    def truncate(self, length):
        self.sequence.truncate(length)
        self.k, self.v = [k[:length] for k in self.k], [v[:length] for v in self.v]


def grow(client, parts, convert=lambda tensor: tensor, back=lambda tensor: tensor):
    """One step of [(context, new tokens)]; `convert` makes the caller's tensors out of numpy's, `back` the reverse."""
    spec, random = parts[0][0].spec, parts[0][0].random
    tokens = sum(count for _, count in parts)
    with client.step([(context.sequence, count) for context, count in parts]) as step:
        assert step.lengths == [context.length for context, _ in parts]
        for layer in range(spec.layers):
            q = draw(random, (tokens, spec.query_heads, spec.head_dim), spec.dtype)
            k, v = (draw(random, (tokens, spec.kv_heads, spec.head_dim), spec.dtype) for _ in range(2))
            o = back(step.layer(layer, convert(q), convert(k), convert(v)))
            compare(parts, layer, *(as_numbers(tensor, spec.dtype) for tensor in (q, k, v, o)))


def compare(parts, layer, q, k, v, o):
    begin = 0
    for context, count in parts:
        rows = slice(begin, begin + count)
        first = context.k[layer].shape[0]
        context.k[layer] = numpy.concatenate([context.k[layer], k[rows]])
        context.v[layer] = numpy.concatenate([context.v[layer], v[rows]])
        window, sinks = context.window or context.spec.window[layer], context.sinks or context.spec.sinks[layer]
        expected, tolerance = attend(q[rows], context.k[layer], context.v[layer], first, window, sinks, context.spec)
        numpy.testing.assert_allclose(o[rows], expected, rtol=0, atol=tolerance)
        begin += count
