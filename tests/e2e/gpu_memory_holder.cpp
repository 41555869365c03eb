// A client that shares GPU memory, has a step open and one of its calls done there, and waits to be killed: for gpu_client_test.cpp.
//
//   gpu_memory_holder ENDPOINT

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "client/cli/demo/long_context.h"
#include "tests/e2e/gpu_client.h"

int main(int argc, char** argv) {
    using namespace kvgrid;
    if (argc != 2) {
        fmt::print(stderr, "usage: gpu_memory_holder ENDPOINT\n");
        return 2;
    }
    Client client = Client::connect(argv[1]).value();
    const ModelSpec spec = e2e::gpu_client_spec();
    const RegisteredModel model = client.register_model(spec).value();
    Sequence sequence = client.open(model).value();
    e2e::GpuTensors tensors(std::uint64_t{3} << 20);
    client.share_device_memory(tensors.handle(), tensors.bytes()).value();
    const StepPart part{&sequence, 1};
    Step step = client.begin({&part, 1}).value();
    tensors.put(cli::new_tokens(spec, 1, 0, 1).input());
    step.layer_on_device(0, tensors.places()).value();
    fmt::print("held\n");
    std::fflush(stdout);
    for (;;) pause();
}
