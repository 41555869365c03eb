// Requests that ask for what is not there or cannot be: each is refused with an error that says what, why and what to do, to the C++
// client and to a client that checks nothing, and the fixture looks that no page and no answer has changed.

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "comm/rpc/shared_region.h"
#include "comm/wire/kvgrid.pb.h"
#include "tests/e2e/bad_input/bad_input.h"

namespace kvgrid::e2e {
namespace {

using comm::MessageType;

constexpr SequenceId kNoSequence{999'999};
constexpr ModelId kNoModel{999'999};
constexpr StepId kNoStep{999'999};

void expect_refusal(const Error& error, Errc code, const std::string& part) {
    EXPECT_EQ(error, code) << error.to_string();
    EXPECT_NE(error.message.find(part), std::string::npos) << error.to_string();
}

template <class T>
Error error_of(const Result<T>& result) {
    return result ? Error{Errc::internal, "it was accepted"} : result.error();
}

Error begin_error(Client& client, const Sequence& sequence, int tokens) {
    const StepPart part{&sequence, tokens};
    return error_of(client.begin({&part, 1}));
}

TEST_F(BadInput, UnknownModelsAreNotFound) {
    RegisteredModel unknown = model();
    unknown.id = kNoModel;
    expect_refusal(error_of(client().open(unknown)), Errc::not_found, "there is no model 999999");
    RawClient lead = raw_lead();
    expect_refusal(lead.refusal(MessageType::begin_step, begin_message(kNoModel, {{trunk().id(), 1}})), Errc::not_found,
                   "model 999999 is not registered");
}

TEST_F(BadInput, UnknownSequencesAreNotFound) {
    expect_refusal(error_of(client().attach(kNoSequence)), Errc::not_found, "sequence 999999 is not open");
    expect_refusal(error_of(client().close(kNoSequence)), Errc::not_found, "there is no sequence 999999");
    RawClient coordinator = raw_coordinator();
    expect_refusal(coordinator.refusal(MessageType::fork_sequence, sequence_message(kNoSequence)), Errc::not_found,
                   "there is no sequence 999999");
    RawClient lead = raw_lead();
    const std::string not_open = "sequence 999999 is not open";
    expect_refusal(lead.refusal(MessageType::begin_step, begin_message(model().id, {{kNoSequence, 1}})),
                   Errc::not_found, not_open);
    expect_refusal(
        lead.refusal(MessageType::begin_step, begin_message(model().id, {{trunk().id(), 1}, {kNoSequence, 1}})),
        Errc::not_found, not_open);
    wire::TruncateRequest truncate;
    truncate.set_sequence(kNoSequence.value);
    expect_refusal(lead.refusal(MessageType::truncate, comm::pack(truncate)), Errc::not_found, not_open);
    wire::SetWindowRequest window;
    window.set_sequence(kNoSequence.value);
    expect_refusal(lead.refusal(MessageType::set_window, comm::pack(window)), Errc::not_found, not_open);
    wire::ReadKvRequest read;
    read.set_sequence(kNoSequence.value);
    expect_refusal(lead.refusal(MessageType::read_kv, comm::pack(read)), Errc::not_found, not_open);
}

TEST_F(BadInput, UnknownStepsAreNotFound) {
    RawClient lead = raw_lead();
    const std::string payload = layer_bytes(spec(), 0, 1, 7).wire();
    const std::string not_open = "step 999999 is not open";
    expect_refusal(lead.refusal(MessageType::layer, layer_message(kNoStep, 0), payload), Errc::not_found, not_open);
    expect_refusal(lead.refusal(MessageType::commit_step, step_message(kNoStep)), Errc::not_found, not_open);
    expect_refusal(lead.refusal(MessageType::abort_step, step_message(kNoStep)), Errc::not_found, not_open);
}

TEST_F(BadInput, ShapesOrDtypesThatDisagreeAreNamed) {
    const StepPart part{&trunk(), 3};
    Step step = client().begin({&part, 1}).value();
    const LayerBytes good = layer_bytes(spec(), 0, 3, 7);
    const std::span<const std::byte> q(good.q), k(good.k), v(good.v);
    const auto refused = [&](int layer, const LayerInput& input, const std::string& why) {
        expect_refusal(error_of(step.layer(layer, input)), Errc::invalid_argument, why);
    };
    refused(0, {q.first(q.size() - 4), k, v}, "q of layer 0 has 3068 bytes; 3 tokens of model 'bad-input' make 3072");
    refused(0, {q, k, {}}, "v of layer 0 has 0 bytes; 3 tokens of model 'bad-input' make 1536");
    refused(0, {k, q, v}, "q of layer 0 has 1536 bytes");
    refused(0, {q.first(q.size() / 2), k.first(k.size() / 2), v.first(v.size() / 2)},
            "q of layer 0 has 1536 bytes");  // f16 or bf16 where the model has f32
    refused(2, good.input(), "k of layer 2 has 1536 bytes; 3 tokens of model 'bad-input' make 0 here");
    refused(3, good.input(), "layer 3: model 'bad-input' has layers 0 to 2");
    refused(-1, good.input(), "layer -1: model 'bad-input' has layers 0 to 2");
    step.abort().value();

    RawClient lead = raw_lead();
    const StepId raw = begin(lead, trunk().id(), 3);
    const std::string payload = good.wire();
    for (const std::size_t bytes : {std::size_t{0}, payload.size() - 1, payload.size() / 2}) {
        expect_refusal(lead.refusal(MessageType::layer, layer_message(raw, 0), payload.substr(0, bytes)),
                       Errc::invalid_argument, fmt::format("got {} bytes of tensors, must be 6144", bytes));
    }
    expect_refusal(lead.refusal(MessageType::layer, layer_message(raw, 0), payload + payload), Errc::invalid_argument,
                   "got 12288 bytes of tensors, must be 6144");
    EXPECT_TRUE(lead.call(MessageType::layer, layer_message(raw, 0), payload));  // the step is as it was
    EXPECT_TRUE(lead.call(MessageType::abort_step, step_message(raw)));
}

TEST_F(BadInput, TokenCountsOfZeroNegativeOrBeyondThePoolAreRefused) {
    for (const int tokens : {0, -1, std::numeric_limits<int>::min()}) {
        EXPECT_EQ(begin_error(client(), trunk(), tokens), Errc::invalid_argument);
        RawClient lead = raw_lead();
        expect_refusal(lead.refusal(MessageType::begin_step, begin_message(model().id, {{trunk().id(), tokens}})),
                       Errc::invalid_argument,
                       fmt::format("sequence {} gets {} tokens: must be at least 1", trunk().id().value, tokens));
    }
    RawClient lead = raw_lead();
    expect_refusal(lead.refusal(MessageType::begin_step, begin_message(model().id, {})), Errc::invalid_argument,
                   "the step names no sequence: it must name at least one");
    for (const int tokens : {65'537, std::numeric_limits<int>::max()}) {
        expect_refusal(lead.refusal(MessageType::begin_step, begin_message(model().id, {{trunk().id(), tokens}})),
                       Errc::invalid_argument, fmt::format("the step has {} tokens: at most 65536", tokens));
    }
    // 32 MiB of each worker hold 1,024 pages of 32 KiB: with four streams and two sequence parts 32,768 tokens.
    expect_refusal(begin_error(client(), trunk(), 40'000), Errc::no_room, "new tokens per sequence would fit");
    expect_refusal(error_of(client().open(model(), {.expected_tokens = 1'000'000})), Errc::no_room,
                   "tokens would fit now");
    EXPECT_EQ(error_of(client().open(model(), {.expected_tokens = -1})), Errc::invalid_argument);
    EXPECT_EQ(trunk().truncate(-1).error(), Errc::invalid_argument);
    EXPECT_EQ(trunk().truncate(kTrunkTokens + 1).error(), Errc::invalid_argument);
    EXPECT_EQ(error_of(trunk().read_kv(0, 0, kTrunkTokens + 1)), Errc::invalid_argument);
    EXPECT_EQ(error_of(trunk().read_kv(0, -1, 2)), Errc::invalid_argument);
    EXPECT_EQ(error_of(trunk().read_kv(2, 0, 1)), Errc::invalid_argument);  // layer 2 has no KV of its own
}

TEST_F(BadInput, LayersComeOnceInOrderAndAllBeforeCommit) {
    RawClient lead = raw_lead();
    const StepId step = begin(lead, trunk().id(), 2);
    const auto layer = [&](int index) {
        return lead.call(MessageType::layer, layer_message(step, index), layer_bytes(spec(), index, 2, 7).wire());
    };
    expect_refusal(error_of(layer(1)), Errc::wrong_state, "layer 0 comes next");
    expect_refusal(lead.refusal(MessageType::commit_step, step_message(step)), Errc::wrong_state,
                   "layer 0 comes next; run it or abort");
    EXPECT_TRUE(layer(0));
    expect_refusal(error_of(layer(0)), Errc::wrong_state, "layer 1 comes next");
    expect_refusal(error_of(layer(2)), Errc::wrong_state, "layer 1 comes next");
    EXPECT_TRUE(layer(1));
    expect_refusal(lead.refusal(MessageType::commit_step, step_message(step)), Errc::wrong_state, "layer 2 comes next");
    EXPECT_TRUE(layer(2));
    expect_refusal(error_of(layer(2)), Errc::wrong_state, "all layers are done; commit or abort it");
    EXPECT_TRUE(lead.call(MessageType::abort_step, step_message(step)));
}

TEST_F(BadInput, AStepThatHasEndedTakesNoMoreCalls) {
    const StepPart part{&trunk(), 2};
    Step step = client().begin({&part, 1}).value();
    step.abort().value();
    expect_refusal(step.commit().error(), Errc::wrong_state, "is aborted");
    expect_refusal(error_of(step.layer(0, layer_bytes(spec(), 0, 2, 7).input())), Errc::wrong_state, "is aborted");

    RawClient lead = raw_lead();
    const StepId aborted = begin(lead, trunk().id(), 2);
    EXPECT_TRUE(lead.call(MessageType::abort_step, step_message(aborted)));
    const std::string ended = "is not open: it was committed, aborted, or lost with its grid";
    expect_refusal(lead.refusal(MessageType::commit_step, step_message(aborted)), Errc::not_found, ended);
    expect_refusal(lead.refusal(MessageType::abort_step, step_message(aborted)), Errc::not_found, ended);
    expect_refusal(lead.refusal(MessageType::layer, layer_message(aborted, 0), layer_bytes(spec(), 0, 2, 7).wire()),
                   Errc::not_found, ended);

    Sequence branch = trunk().fork().value();
    run_step(client(), spec(), branch, 2, 7, /*commit=*/true);
    EXPECT_EQ(branch.inspect().value().length, kTrunkTokens + 2);
}

TEST_F(BadInput, AStepIsItsConnectionsOwn) {
    const StepPart part{&trunk(), 2};
    Step step = client().begin({&part, 1}).value();
    RawClient stranger = raw_lead();
    const std::string why = "was begun on another connection";
    expect_refusal(
        stranger.refusal(MessageType::layer, layer_message(step.id(), 0), layer_bytes(spec(), 0, 2, 7).wire()),
        Errc::not_found, why);
    expect_refusal(stranger.refusal(MessageType::commit_step, step_message(step.id())), Errc::not_found, why);
    expect_refusal(stranger.refusal(MessageType::abort_step, step_message(step.id())), Errc::not_found, why);
    EXPECT_TRUE(step.layer(0, layer_bytes(spec(), 0, 2, 7).input()));
    step.abort().value();
}

TEST_F(BadInput, ASequenceTakesOneStepAtATime) {
    const StepPart part{&trunk(), 2};
    Step step = client().begin({&part, 1}).value();
    expect_refusal(begin_error(client(), trunk(), 1), Errc::busy, "step");
    expect_refusal(error_of(trunk().fork()), Errc::busy, "step");
    expect_refusal(trunk().truncate(0).error(), Errc::busy, "step");
    expect_refusal(client().close(trunk().id()).error(), Errc::busy, "step");
    RawClient lead = raw_lead();
    expect_refusal(
        lead.refusal(MessageType::begin_step, begin_message(model().id, {{trunk().id(), 1}, {trunk().id(), 1}})),
        Errc::invalid_argument, "is named twice");
    step.abort().value();
}

TEST_F(BadInput, NanAndInfinityInKOrVAreRefusedAndCounted) {
    const std::uint64_t counted = client().occupancy().value().non_finite_refusals;
    const StepPart part{&trunk(), 3};
    Step step = client().begin({&part, 1}).value();
    const LayerBytes good = layer_bytes(spec(), 0, 3, 7);
    LayerBytes bad = good;
    store_element(bad.k.data(), (2 * 2 + 1) * 64 + 5, Dtype::f32, std::numeric_limits<float>::quiet_NaN());
    expect_refusal(error_of(step.layer(0, bad.input())), Errc::invalid_argument,
                   "layer 0: k of token 2 of 3, KV head 1, element 5 is NaN: mend it and call the layer again");
    bad = good;
    store_element(bad.v.data(), 0, Dtype::f32, std::numeric_limits<float>::infinity());
    expect_refusal(error_of(step.layer(0, bad.input())), Errc::invalid_argument,
                   "layer 0: v of token 0 of 3, KV head 0, element 0 is infinity");
    EXPECT_EQ(client().occupancy().value().non_finite_refusals, counted + 2);
    EXPECT_TRUE(step.layer(0, good.input()));
    step.abort().value();
}

TEST_F(BadInput, ASpecThatCannotBeShardedOverTheWorkersIsRefused) {
    ModelSpec other = bad_input_spec();
    other.name = "other";
    const auto refused = [&](const ModelSpec& unfit, ModelOptions options, Errc code, const std::string& why) {
        expect_refusal(error_of(client().register_model(unfit, options)), code, why);
    };
    for (const GridShape& grid : {GridShape{3, 1}, GridShape{2, 2}}) {
        refused(other, {.grid = grid}, Errc::invalid_argument, "2 workers");
    }
    for (const GridShape& grid : {GridShape{0, 2}, GridShape{-1, -2}}) {
        refused(other, {.grid = grid}, Errc::invalid_argument, "must be at least 1");
    }
    ModelSpec one_head = other;
    one_head.query_heads = one_head.kv_heads = 1;
    refused(one_head, {.grid = {2, 1}}, Errc::invalid_argument, "head");
    refused(other, {.pool_bytes_per_worker = std::uint64_t{1} << 50}, Errc::no_room, "bytes of each worker");
    refused(other, {.pool_bytes_per_worker = 1}, Errc::no_room, "ask for at least that");
    ModelSpec changed = bad_input_spec();
    changed.scale = 0.25;
    refused(changed, {.grid = {1, 2}}, Errc::already_exists, "choose another name");
    ModelSpec impossible = other;
    impossible.kv_heads = 3;
    refused(impossible, {}, Errc::invalid_argument, "query_heads is 4: must be a multiple of kv_heads, 3");
    EXPECT_EQ(client().models().value().size(), 1u);

    RawClient coordinator = raw_coordinator();
    for (const char* json : {"", "{", "[]", "{\"name\":7}", "{\"name\":\"x\",\"layers\":1e9}"}) {
        wire::RegisterModelRequest request;
        request.set_spec_json(json);
        EXPECT_EQ(coordinator.refusal(MessageType::register_model, comm::pack(request)), Errc::invalid_argument)
            << json;
    }
}

// Descriptors that are no shared memory, and parts that are not within it; and what is right is answered through it.
TEST_F(BadInput, SharedMemoryThatIsNone) {
    RawClient lead = raw_lead();
    const StepId step = begin(lead, trunk().id(), 1);
    const auto share = [](int file, std::uint64_t bytes) {
        wire::ShareMemoryRequest request;
        request.set_file(file);
        request.set_bytes(bytes);
        return comm::pack(request);
    };
    const auto layer = [&](std::uint64_t offset, std::uint64_t bytes, std::uint64_t output_bytes) {
        wire::LayerRequest request;
        request.set_step(step.value);
        request.set_shared_offset(offset);
        request.set_shared_bytes(bytes);
        request.set_shared_output_bytes(output_bytes);
        return comm::pack(request);
    };
    const auto memory = comm::SharedRegion::make(64 << 10).value();
    const std::size_t size = memory->bytes().size();
    const int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    expect_refusal(lead.refusal(MessageType::share_memory, share(unsealed, 10)), Errc::invalid_argument, "sealed");
    expect_refusal(lead.refusal(MessageType::share_memory, share(99'999, 10)), Errc::unsupported, "/fd/99999");
    expect_refusal(lead.refusal(MessageType::share_memory, share(memory->file(), size + 1)), Errc::invalid_argument,
                   "sealed");
    expect_refusal(lead.refusal(MessageType::layer, layer(0, 100, 0)), Errc::invalid_argument, "has shared 0 bytes");
    ASSERT_TRUE(lead.call(MessageType::share_memory, share(memory->file(), size)));
    for (const auto& [offset, bytes] :
         {std::pair<std::uint64_t, std::uint64_t>{size - 50, 100}, {1, size}, {~0ull, 2}, {size + 1, 1}}) {
        expect_refusal(lead.refusal(MessageType::layer, layer(offset, bytes, 0)), Errc::invalid_argument,
                       "of shared memory");
    }
    expect_refusal(lead.refusal(MessageType::layer, layer(0, 100, size)), Errc::invalid_argument, "of shared memory");
    expect_refusal(lead.refusal(MessageType::layer, layer(0, 100, 100)), Errc::invalid_argument, "100");

    const LayerBytes tensors = layer_bytes(spec(), 0, 1, 5);
    const std::string wire = tensors.wire();
    std::memcpy(memory->bytes().data() + 512, wire.data(), wire.size());
    const auto reply = lead.call(MessageType::layer, layer(512, wire.size(), tensors.q.size()));
    ASSERT_TRUE(reply) << reply.error().to_string();
    EXPECT_TRUE(comm::unpack<wire::LayerReply>(*reply)->shared());
    EXPECT_EQ(reply->payload.size(), 0u);
    const auto o = memory->bytes().subspan((512 + wire.size() + 255) / 256 * 256, tensors.q.size());
    EXPECT_TRUE(lead.call(MessageType::abort_step, step_message(step)));
    const StepPart part{&trunk(), 1};
    Step again = client().begin({&part, 1}).value();
    EXPECT_TRUE(std::ranges::equal(again.layer(0, tensors.input()).value(), o));
    EXPECT_TRUE(again.abort());
    ::close(unsealed);
}

TEST_F(BadInput, NothingIsReadFromGpuMemoryThatWasNotShared) {
    const StepPart part{&trunk(), 1};
    Step step = client().begin({&part, 1}).value();
    expect_refusal(step.layer_on_device(0, {}).error(), Errc::wrong_state, "has shared no GPU memory");
    EXPECT_TRUE(step.layer(0, layer_bytes(spec(), 0, 1, 5).input()));
    EXPECT_TRUE(step.abort());
}

TEST(BadInputOfOne, GpuMemoryIsNotSharedWithAWorkerOnACpu) {
    E2eCluster cluster(1, {"--device", "cpu"});
    const std::vector<std::byte> handle(64);
    expect_refusal(cluster.client().share_device_memory(std::span<const std::byte, 64>(handle), 4096).error(),
                   Errc::unsupported, "start the worker on the GPU");
}

}  // namespace
}  // namespace kvgrid::e2e
