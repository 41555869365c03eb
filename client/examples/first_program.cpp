// A first program: registers a model, grows a sequence by one step, and asks how full the grid is.
#include <cstdio>
#include <cstdlib>

#include "client/kvgrid.h"  // installed: <kvgrid/kvgrid.h>

int main(int argc, char** argv) {
    using namespace kvgrid;
    // value() ends the program where a call failed, and says why.
    Client client = Client::connect(argc > 1 ? argv[1] : "127.0.0.1:7400").value();
    const char* json =
        R"({"name": "tiny", "layers": 2, "query_heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "f32"})";
    ModelSpec spec = parse_model_spec(json).value();
    RegisteredModel model = client.register_model(spec, {.pool_bytes_per_worker = 16 << 20}).value();
    Sequence sequence = client.open(model).value();

    const int tokens = 100;
    auto random_tensor = [&](int heads) {  // [tokens, heads, head_dim] f32, in [0, 1)
        std::vector<float> values(std::size_t(tokens) * heads * spec.head_dim);
        for (float& value : values) value = std::rand() / (RAND_MAX + 1.f);
        auto bytes = std::as_bytes(std::span(values));
        return std::vector<std::byte>(bytes.begin(), bytes.end());
    };
    StepPart part{&sequence, tokens};
    Step step = client.begin({&part, 1}).value();
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        auto q = random_tensor(spec.query_heads), k = random_tensor(spec.kv_heads), v = random_tensor(spec.kv_heads);
        std::vector<std::byte> o = step.layer(layer, {q, k, v}).value();
        std::printf("layer %d: %zu bytes of attention output\n", layer, o.size());
    }
    step.commit().value();

    GridOccupancy grid = client.occupancy().value();
    for (const WorkerOccupancy& worker : grid.workers)
        for (const ModelOccupancy& pool : worker.models)
            std::printf("rank %d: %ju of %ju pages used\n", worker.rank, std::uintmax_t{pool.used_pages},
                        std::uintmax_t{pool.capacity_pages});
}
