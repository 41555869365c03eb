#!/usr/bin/env python3
"""What one layer call costs from Python with its tensors on a GPU, by where they lie; microseconds, of one worker on the same GPU.

    python tests/bench/gpu_layer_call_bench.py [--context 256] [--calls 4000]

    in place     in Model.gpu_tensors: nothing is copied
    torch's own  in memory of torch's, o too: four copies on the GPU
    ... a kernel the same right after a small kernel of this process, as a model has them: two processes take turns on a GPU
    on the CPU   the same call with tensors in the host's memory

A decode of one token through a layer of 32 query and 8 KV heads of 128 in bf16; the wall time of Step.layer, with nothing else queued on the stream.
"""

import argparse
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--calls", type=int, default=4000)
    options = parser.parse_args()
    import torch

    import kvgrid

    layers = 32
    spec = kvgrid.ModelSpec(name="layers", layers=layers, query_heads=32, kv_heads=8, head_dim=128, dtype="bf16")
    with kvgrid.local(workers=1, memory="2GiB", device="gpu") as cluster, cluster.connect() as client:
        model = client.register(spec)
        print(f"{torch.cuda.get_device_name()}, {options.context} tokens, {options.calls} calls")
        for name in ("in place", "in place, a kernel", "torch's own", "torch's own, a kernel", "on the CPU"):
            if name.startswith("in place"):
                q, k, v, o = (torch.from_dlpack(tensor).normal_() for tensor in model.gpu_tensors(1))
            else:
                device = "cpu" if name == "on the CPU" else "cuda"
                q, k, v, o = (torch.randn(1, heads, 128, device=device).to(torch.bfloat16) for heads in (32, 8, 8, 32))
            microseconds = []
            with model.open() as sequence:
                fill = torch.zeros(options.context, 8, 128, dtype=torch.bfloat16)
                with client.step([(sequence, options.context)], kind="write") as step:
                    for layer in range(layers):
                        step.layer(layer, k=fill, v=fill)
                torch.cuda.synchronize()
                for _ in range(options.calls // layers):
                    with client.step([(sequence, 1)]) as step:
                        for layer in range(layers):
                            if name.endswith("a kernel"):
                                q.mul_(1)
                            begin = time.perf_counter()
                            step.layer(layer, q, k, v, out=o)
                            microseconds.append(1e6 * (time.perf_counter() - begin))
                    sequence.truncate(options.context)
            quantiles = statistics.quantiles(microseconds[layers:], n=100)
            print(f"{name:21} p50 {quantiles[49]:6.1f}  p90 {quantiles[89]:6.1f}  p99 {quantiles[98]:6.1f}")


if __name__ == "__main__":
    main()
