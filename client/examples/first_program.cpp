// A first program: registers a model, grows a sequence by one step, and asks how full the grid is.
#include <cstdio>

#include "client/kvgrid.h"  // installed: <kvgrid/kvgrid.h>

int main(int argc, char** argv) {
    using namespace kvgrid;
    Client client = Client::connect(argc > 1 ? argv[1] : "127.0.0.1:7070").value();  // value(): or end, saying why
    ModelSpec spec = parse_model_spec(R"({"name": "tiny", "layers": 2, "query_heads": 8, "kv_heads": 2, "head_dim": 64,
                                          "dtype": "f32"})")
                         .value();
    RegisteredModel model = client.register_model(spec, {.pool_bytes_per_worker = 16 << 20}).value();
    Sequence sequence = client.open(model).value();

    const StepPart part{&sequence, 100};  // 100 new tokens
    Step step = client.begin({&part, 1}).value();
    std::vector<std::byte> q(100 * spec.query_heads * spec.row_bytes());  // your model's tensors; zeros here
    std::vector<std::byte> k(100 * spec.kv_heads * spec.row_bytes()), v = k;
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        std::vector<std::byte> o = step.layer(layer, {q, k, v}).value();  // attention over the whole context
        std::printf("layer %d: %zu bytes of output\n", layer, o.size());
    }
    step.commit().value();

    for (const WorkerOccupancy& worker : client.occupancy().value().workers)
        std::printf("rank %d: %lu pages used\n", worker.rank, worker.models[0].used_pages);
}
