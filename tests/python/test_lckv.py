"""client/examples/lckv.py: it runs as it stands; a prompt in passes comes to what token by token gives once there are as many passes as
tokens, and not before; and a model whose layers all keep their own KV is a plain decoder, bit for bit.

Tolerance of the agreement: both ways compute in f32 and sum in other orders (rows are batched otherwise), which the layers of the model carry
on: 1e-5 of the largest logit, where one pass too few is off by more than 1e-3.
"""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "client" / "examples"))
import lckv  # noqa: E402

from kvgrid import layer_types  # noqa: E402

TOKENS = torch.arange(7, 17) * 11 % 256


@pytest.fixture(autouse=True)
def inference():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small products: on a busy machine threads that spin for one another take minutes
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def decoder(client, request):
    def made(notation, layers=6):
        made.count += 1
        return lckv.Decoder(client, lckv.tiny_llama(layers), notation, f"{request.node.name}-{made.count}", 4 << 20)

    made.count = 0
    return made


@pytest.mark.parametrize("notation", ["0_4_4_4_4_5", "0_1_3_3_4_5", "0_2_2_2_2_5", "2_2_2_5_5_5", "3_3_3_3_3_3"])
def test_passes_agree_with_token_by_token_once_they_are_as_many(decoder, notation):
    model = decoder(notation)
    assert lckv.agreement(model, TOKENS, len(TOKENS)) < 1e-5
    assert lckv.agreement(model, TOKENS, len(TOKENS) + 3) < 1e-5
    assert lckv.agreement(model, TOKENS, 2) > 1e-3


def test_more_passes_than_tokens_change_no_bit(decoder):
    model = decoder(layer_types.lckv(6))

    def prompt(passes):
        with model.grid.open() as sequence:
            return model.prompt([(sequence, len(TOKENS))], TOKENS, passes)

    enough = prompt(len(TOKENS))
    assert torch.equal(enough, prompt(len(TOKENS) + 1)) and torch.equal(enough, prompt(len(TOKENS) + 5))
    assert not torch.equal(enough, prompt(len(TOKENS) - 1))


def test_a_prompt_of_several_sequences_goes_on_behind_what_is_committed(decoder):
    model = decoder(layer_types.lckv(6))
    pairs = [(model.grid.open(), model.grid.open()) for _ in range(2)]
    for first, second in ((10, 4), (3, 6)):
        tokens = torch.arange(first + second) * 17 % 256
        got = model.prompt([(pairs[0][0], first), (pairs[1][0], second)], tokens, 10)
        alone = [[model.decode([(sequence, 1)], token[None]) for token in part]
                 for (_, sequence), part in zip(pairs, tokens.split([first, second]))]
        expected = torch.cat(alone[0] + alone[1])
        assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_identity_is_a_plain_decoder_bit_for_bit(decoder):
    plain, identity = decoder(None), decoder(layer_types.standard(6))
    outputs = []
    for model, prompt in ((plain, plain.decode), (identity, identity.decode), (identity, lambda *of: identity.prompt(*of, passes=9))):
        with model.grid.open() as one, model.grid.open() as other:
            steps = [prompt([(one, 6), (other, 4)], TOKENS)]
            for token in (3, 5):
                steps.append(model.decode([(one, 1), (other, 1)], torch.tensor([token, token + 1])))
            outputs.append(torch.cat(steps))

    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_weights_of_a_layer_are_the_mean_of_those_that_read_it():
    model = lckv.tiny_llama(4)
    shared = lckv.condensed(model, "0_2_2_3").layers
    assert torch.equal(shared[2]["k"], (model.layers[1]["k"] + model.layers[2]["k"]) / 2)
    assert torch.equal(shared[0]["v"], model.layers[0]["v"]) and "k" not in shared[1] and "v" not in shared[1]
    assert torch.equal(shared[1]["q"], model.layers[1]["q"])


def test_it_runs_as_it_stands():
    done = subprocess.run([sys.executable, lckv.__file__, "--tiny", "--pool", "2", "--length", "5+20", "--tokens", "5"],
                          capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "5 passes: logits differ by" in done.stdout and "3/6" in done.stdout
