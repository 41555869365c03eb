"""A spec means the same however it was made, and what breaks a rule is refused by field."""

import pytest

import kvgrid

LLAMA = {"model_type": "llama", "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512,
         "torch_dtype": "bfloat16"}


class Config:
    def to_dict(self):
        return LLAMA


def test_fields_json_and_attributes_agree():
    spec = kvgrid.ModelSpec(name="m", layers=3, query_heads=8, kv_heads=4, head_dim=64, dtype="bf16", kv_layer_of=[0, 0, 2],
                            window=[100, 0, 0], sinks=[4, 0, 0], logit_soft_cap=30.0, deterministic=True, non_finite="allow")
    again = kvgrid.ModelSpec.from_json(spec.to_json())

    assert again == spec and hash(again) == hash(spec)
    assert (spec.name, spec.layers, spec.query_heads, spec.kv_heads, spec.head_dim, spec.dtype) == ("m", 3, 8, 4, 64, "bf16")
    assert (spec.kv_layer_of, spec.window, spec.sinks) == ([0, 0, 2], [100, 0, 0], [4, 0, 0])
    assert (spec.scale, spec.logit_soft_cap, spec.deterministic, spec.non_finite) == (0.125, 30.0, True, "allow")
    assert spec.token_bytes == 2 * 2 * 4 * 64 * 2


def test_hugging_face_configs_as_dictionary_and_object():
    spec = kvgrid.ModelSpec.from_hugging_face(LLAMA)
    assert (spec.layers, spec.query_heads, spec.kv_heads, spec.head_dim, spec.dtype, spec.name) == (4, 8, 2, 64, "bf16", "llama")
    assert kvgrid.ModelSpec.from_hugging_face(Config()) == spec
    assert kvgrid.ModelSpec.from_hugging_face(Config(), dtype="float32", name="mine").dtype == "f32"
    with pytest.raises(kvgrid.Unsupported, match="model_type"):
        kvgrid.ModelSpec.from_hugging_face({**LLAMA, "model_type": "bert"})


@pytest.mark.parametrize("field, value", [("head_dim", 33), ("kv_heads", 3), ("dtype", "f64"), ("layers", 0), ("scale", -1.0)])
def test_a_broken_rule_names_its_field(field, value):
    fields = {"layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 32, "dtype": "f32", field: value}
    with pytest.raises(kvgrid.InvalidArgument, match=field):
        kvgrid.ModelSpec(**fields)
