#include "tests/e2e/bad_input/bad_input.h"

#include <fmt/format.h>

#include <random>

#include "comm/wire/kvgrid.pb.h"

namespace kvgrid::e2e {

namespace {

constexpr std::uint64_t kPoolBytes = std::uint64_t{32} << 20;
constexpr std::uint64_t kTrunkRun = 1, kQuestionRun = 2;

}  // namespace

ModelSpec bad_input_spec() {
    return validated({.name = "bad-input",
                      .layers = {{.kv_layer = 0}, {.kv_layer = 1}, {.kv_layer = 0}},
                      .query_heads = 4,
                      .kv_heads = 2,
                      .head_dim = 64,
                      .dtype = Dtype::f32,
                      .scale = 0.125})
        .value();
}

std::string LayerBytes::wire() const {
    std::string bytes;
    for (const auto* tensor : {&q, &k, &v}) bytes.append(reinterpret_cast<const char*>(tensor->data()), tensor->size());
    return bytes;
}

LayerBytes layer_bytes(const ModelSpec& spec, int layer, int tokens, std::uint64_t run) {
    std::mt19937_64 random(run * 1'000 + static_cast<std::uint64_t>(layer));
    std::normal_distribution<float> normal;
    const auto tensor = [&](int heads) {
        const std::size_t count = std::size_t{1} * tokens * heads * spec.head_dim;
        std::vector<std::byte> bytes(count * byte_size(spec.dtype));
        for (std::size_t i = 0; i < count; ++i) store_element(bytes.data(), i, spec.dtype, normal(random));
        return bytes;
    };
    LayerBytes bytes{tensor(spec.query_heads), {}, {}};
    if (!spec.owns_kv(layer)) return bytes;
    bytes.k = tensor(spec.kv_heads);
    bytes.v = tensor(spec.kv_heads);
    return bytes;
}

std::vector<std::byte> run_step(Client& client, const ModelSpec& spec, const Sequence& sequence, int tokens,
                                std::uint64_t run, bool commit) {
    const StepPart part{&sequence, tokens};
    Step step = client.begin({&part, 1}).value();
    std::vector<std::byte> outputs;
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        const auto output = step.layer(layer, layer_bytes(spec, layer, tokens, run).input()).value();
        outputs.insert(outputs.end(), output.begin(), output.end());
    }
    (commit ? step.commit() : step.abort()).value();
    return outputs;
}

std::string pages_of(Client& client) {
    std::string text;
    const GridOccupancy occupancy = client.occupancy().value();
    for (const WorkerOccupancy& worker : occupancy.workers) {
        for (const ModelOccupancy& model : worker.models) {
            EXPECT_EQ(model.free_pages + model.used_pages + model.reserved_pages, model.capacity_pages);
            text += fmt::format(
                "worker {}, model {}: {} pages, {} free, {} used, {} reserved, {} shared, {} sequences, {} stored\n",
                worker.worker.value, model.model.value, model.capacity_pages, model.free_pages, model.used_pages,
                model.reserved_pages, model.shared_pages, model.sequences, model.stored_tokens);
        }
    }
    return text;
}

void BadInput::SetUpTestSuite() {
    shared_ = std::make_unique<Shared>();
    shared_->model =
        client().register_model(bad_input_spec(), {.grid = {1, 2}, .pool_bytes_per_worker = kPoolBytes}).value();
    shared_->trunk.emplace(client().open(model()).value());
    run_step(client(), spec(), trunk(), kTrunkTokens, kTrunkRun, /*commit=*/true);
}

void BadInput::TearDownTestSuite() {
    shared_.reset();
}

void BadInput::SetUp() {
    pages_before_ = pages_of(client());
    answers_before_ = ask_trunk();
}

void BadInput::TearDown() {
    EXPECT_EQ(pages_of(client()), pages_before_);
    EXPECT_EQ(trunk().inspect().value().length, kTrunkTokens);
    EXPECT_TRUE(ask_trunk() == answers_before_) << "the sequence answers otherwise than before";
    const Status running = cluster().check();
    EXPECT_TRUE(running) << running.error().to_string();
}

std::vector<std::byte> BadInput::ask_trunk() {
    Sequence branch = trunk().fork().value();
    std::vector<std::byte> answers = run_step(client(), spec(), branch, 2, kQuestionRun, /*commit=*/false);
    branch.close().value();
    return answers;
}

RawClient BadInput::raw_lead() {
    const ClusterStatus status = client().status().value();
    return {lead_endpoint(status), status.generation};
}

RawClient BadInput::raw_coordinator() {
    return {cluster().endpoint(), client().status().value().generation};
}

StepId BadInput::begin(RawClient& lead, SequenceId sequence, int tokens) {
    const auto answer = lead.call(comm::MessageType::begin_step, begin_message(model().id, {{sequence, tokens}}));
    return StepId{comm::unpack<wire::BeginStepReply>(answer.value()).value().step()};
}

bool BadInput::pages_come_back(std::chrono::milliseconds within) {
    return becomes_true(within, [&] { return pages_of(client()) == pages_before_; });
}

}  // namespace kvgrid::e2e
