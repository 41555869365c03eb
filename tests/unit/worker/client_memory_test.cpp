// A layer call whose tensors lie in memory that a client has shared gives what the same call gives with a payload, and touches nothing but o;
// whatever is refused changes nothing; and the memory is let go when its connection is gone and the last call that uses it has ended. A lead and its
// shard, as a worker has them, on a CPU, for which the memory of a GPU is the host's: what CUDA does is left out.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <random>

#include "comm/collective/thread_collective.h"
#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "tests/unit/worker/host_memory.h"
#include "worker/cpu_device.h"
#include "worker/executor.h"
#include "worker/service.h"

namespace kvgrid::worker {
namespace {

using comm::MessageType;

constexpr Generation kGeneration{3};
constexpr ModelId kModel{1};
constexpr comm::ConnectionId kOwner = 5, kOther = 6;
constexpr std::size_t kMemoryBytes = 64 << 10;
constexpr int kElsewhere = 1;  // a process that is not this one
const std::string kHandle(DeviceMemory::kHandleBytes, 'h');

// Layer 2 reads the first one's KV.
ModelSpec small_spec() {
    return validated({.name = "m",
                      .layers = {{0}, {1}, {0}},
                      .query_heads = 4,
                      .kv_heads = 2,
                      .head_dim = 32,
                      .dtype = Dtype::f32,
                      .scale = 0.2})
        .value();
}

class ClientMemory : public testing::Test {
  protected:
    struct Links final : GridLinks {
        int rank_count() const override { return 1; }
        Status send(int, const Operation& operation) override {
            waiting.push_back(operation);
            return {};
        }
        std::deque<Operation> waiting;
    };

    ClientMemory() : collective_(std::move(comm::make_thread_collectives(1, kGeneration)[0])) {
        lead_.submit(AddModel{kModel, spec_, {1, 1}, 0}, [](const OperationResult& result) { result.status.value(); });
        for (std::uint64_t id : {1, 2}) lead_.submit(OpenSequence{SequenceId{id}, kModel, {}}, [](OperationResult) {});
        apply_all();
        for (std::byte& byte : bytes_) byte = std::byte{0xab};
    }

    void apply_all() {
        while (!links_.waiting.empty()) {
            Operation next = std::move(links_.waiting.front());
            links_.waiting.pop_front();
            const std::uint64_t number = next.number;
            OperationResult result = executor_.apply(next);
            next = {};
            lead_.completed(number, std::move(result));
        }
    }

    // The answer is in answer_ when the operation has been applied.
    void send(Service& to, MessageType type, const google::protobuf::MessageLite& message, comm::Payload payload,
              comm::ConnectionId connection, int process = kElsewhere) {
        answer_.reset();
        to.handle({.frame = {{.type = type, .generation = kGeneration.value, .request = 1},
                             comm::pack(message),
                             std::move(payload)},
                   .connection = connection,
                   .deadline = Deadline::max(),
                   .peer_process = process},
                  comm::Responder([this](MessageType reply, std::string text, comm::Payload tensors) {
                      answer_ = comm::Frame{{.type = reply}, std::move(text), std::move(tensors)};
                  }));
    }
    // "": it was done.
    std::string outcome() {
        apply_all();
        if (answer_->header.type != MessageType::error) return "";
        return comm::from_wire(comm::unpack<wire::ErrorReply>(*answer_).value()).to_string();
    }
    std::string share(std::uint64_t bytes, const std::string& handle = kHandle, int process = kElsewhere,
                      comm::ConnectionId connection = kOwner, std::uint32_t memory = 0) {
        wire::ShareDeviceMemoryRequest request;
        request.set_memory(memory);
        request.set_handle(handle);
        request.set_bytes(bytes);
        send(service_, MessageType::share_device_memory, request, {}, connection, process);
        return outcome();
    }
    StepId begin(std::uint64_t sequence, int tokens, wire::StepKind kind = wire::ATTEND) {
        wire::BeginStepRequest request;
        request.set_model(kModel.value);
        request.set_kind(kind);
        auto& part = *request.add_parts();
        part.set_sequence(sequence);
        part.set_tokens(tokens);
        send(service_, MessageType::begin_step, request, {}, kOwner);
        EXPECT_EQ(outcome(), "");
        return StepId{comm::unpack<wire::BeginStepReply>(*answer_).value().step()};
    }
    static wire::LayerRequest layer_of(StepId step, int layer) {
        wire::LayerRequest request;
        request.set_step(step.value);
        request.set_layer(layer);
        return request;
    }
    static wire::LayerRequest in_place(StepId step, int layer, const DeviceOffsets& at) {
        wire::LayerRequest request = layer_of(step, layer);
        request.mutable_on_device()->set_q(at.q);
        request.mutable_on_device()->set_k(at.k);
        request.mutable_on_device()->set_v(at.v);
        request.mutable_on_device()->set_o(at.o);
        return request;
    }
    std::string call(const wire::LayerRequest& request, comm::Payload payload = {},
                     comm::ConnectionId connection = kOwner) {
        send(service_, MessageType::layer, request, std::move(payload), connection);
        return outcome();
    }
    std::string end(StepId step, MessageType how) {
        wire::StepRequest request;
        request.set_step(step.value);
        send(service_, how, request, {}, kOwner);
        return outcome();
    }
    std::vector<std::byte> random_bytes(std::size_t bytes) {
        std::vector<std::byte> values(bytes);
        std::uniform_real_distribution<float> any(-1, 1);
        for (std::size_t at = 0; at < bytes; at += sizeof(float)) {
            const float value = any(random_);
            std::memcpy(values.data() + at, &value, sizeof(value));
        }
        return values;
    }
    // One layer of a step of each sequence: the first with a payload, the second in memory. o of both is the same, and all else as it was.
    void compare_layer(StepId with_payload, StepId in_memory, int layer, int tokens, bool attends) {
        const std::size_t row = spec_.row_bytes() * tokens, q = attends ? row * spec_.query_heads : 0;
        const std::size_t kv = spec_.owns_kv(layer) ? row * spec_.kv_heads : 0;
        const DeviceOffsets at{.q = 32 << 10, .k = 0, .v = 16 << 10, .o = 48 << 10};
        const std::vector<std::byte> tensors = random_bytes(q + 2 * kv);
        std::copy_n(tensors.begin(), q, bytes_.begin() + at.q);
        std::copy_n(tensors.begin() + q, kv, bytes_.begin() + at.k);
        std::copy_n(tensors.begin() + q + kv, kv, bytes_.begin() + at.v);
        std::vector<std::byte> expected = bytes_;
        ASSERT_EQ(call(layer_of(with_payload, layer), comm::Payload::copy_of(tensors)), "");
        ASSERT_EQ(answer_->payload.size(), q);
        std::ranges::copy(answer_->payload.bytes(), expected.begin() + at.o);

        ASSERT_EQ(call(in_place(in_memory, layer, at)), "");
        EXPECT_EQ(answer_->payload.size(), 0u);
        EXPECT_EQ(bytes_, expected) << "layer " << layer << " of " << tokens << " tokens";
    }

    const ModelSpec spec_ = small_spec();
    std::mt19937 random_{7};
    CpuDevice device_{1};
    std::unique_ptr<comm::Collective> collective_;
    Shard shard_{0, 4 << 20, device_};
    Executor executor_{shard_, *collective_, std::chrono::seconds(60)};
    Links links_;
    Lead lead_{links_};
    std::vector<std::byte> bytes_ = std::vector<std::byte>(kMemoryBytes);
    std::vector<std::weak_ptr<DeviceMemory>> opened_;
    Service service_{lead_,
                     kGeneration,
                     {WorkerId{1}},
                     [this](std::span<const std::byte>, std::uint64_t bytes) -> Result<std::shared_ptr<DeviceMemory>> {
                         if (bytes > bytes_.size()) return {Errc::invalid_argument, "the allocation has less"};
                         std::shared_ptr<DeviceMemory> made = std::make_shared<HostMemory>(bytes_);
                         opened_.push_back(made);
                         return made;
                     }};
    std::optional<comm::Frame> answer_;
};

TEST_F(ClientMemory, TensorsInItGiveWhatTheSameTensorsGiveAsAPayload) {
    ASSERT_EQ(share(kMemoryBytes), "");
    for (const auto& [tokens, kind] : {std::pair{5, wire::ATTEND}, {7, wire::WRITE}, {1, wire::ATTEND}}) {
        const StepId a = begin(1, tokens, kind), b = begin(2, tokens, kind);
        for (int layer = 0; layer < 3; ++layer) {
            if (kind == wire::ATTEND || spec_.owns_kv(layer)) compare_layer(a, b, layer, tokens, kind == wire::ATTEND);
        }
        ASSERT_EQ(end(a, MessageType::commit_step), "");
        ASSERT_EQ(end(b, MessageType::commit_step), "");
    }
    EXPECT_EQ(shard_.length_of(SequenceId{2}), 13);
}

TEST_F(ClientMemory, WhatCannotBeSharedIsRefused) {
    EXPECT_NE(share(16, kHandle, 0).find("unsupported: GPU memory can be shared over a Unix-domain"),
              std::string::npos);
    EXPECT_NE(share(16, kHandle, getpid()).find("unsupported: the GPU memory is of the worker's own process"),
              std::string::npos);
    EXPECT_NE(share(16, "short").find("invalid_argument: a handle of 5 bytes"), std::string::npos);
    EXPECT_EQ(share(kMemoryBytes + 1), "invalid_argument: the allocation has less");
    EXPECT_TRUE(opened_.empty());

    const auto open = [this](std::span<const std::byte> handle, std::uint64_t bytes) {
        return device_.open_memory(handle, bytes);
    };
    Service on_cpu(lead_, kGeneration, {WorkerId{1}}, open);
    wire::ShareDeviceMemoryRequest request;
    request.set_handle(kHandle);
    request.set_bytes(16);
    send(on_cpu, MessageType::share_device_memory, request, {}, kOwner);
    EXPECT_NE(outcome().find("unsupported: the worker keeps its pages in the host's memory"), std::string::npos);
}

TEST_F(ClientMemory, ARefusedCallChangesNothing) {
    const DeviceOffsets good{.q = 0, .k = 4096, .v = 8192, .o = 12288};
    const StepId step = begin(2, 2);  // q and o have 1,024 bytes, k and v 512
    const std::vector<std::byte> before = bytes_;
    EXPECT_NE(call(in_place(step, 0, good)).find("wrong_state: this connection has shared no GPU memory"),
              std::string::npos);
    ASSERT_EQ(share(kMemoryBytes), "");
    ASSERT_EQ(share(kMemoryBytes, kHandle, kElsewhere, kOther), "");

    const auto with = [&](std::uint64_t DeviceOffsets::*which, std::uint64_t offset) {
        DeviceOffsets at = good;
        at.*which = offset;
        return call(in_place(step, 0, at));
    };
    constexpr auto kNone = std::string::npos;
    EXPECT_NE(with(&DeviceOffsets::q, 8).find("invalid_argument: q begins at byte 8"), kNone);
    EXPECT_NE(with(&DeviceOffsets::v, 8200).find("invalid_argument: v begins at byte 8200"), kNone);
    EXPECT_NE(with(&DeviceOffsets::k, kMemoryBytes - 496).find("invalid_argument: k of 512 bytes"), kNone);
    EXPECT_NE(with(&DeviceOffsets::o, kMemoryBytes).find("invalid_argument: o of 1024 bytes"), kNone);
    EXPECT_NE(with(&DeviceOffsets::q, ~std::uint64_t{15}).find("invalid_argument: q of 1024 bytes"), kNone);
    EXPECT_NE(with(&DeviceOffsets::o, 8192 + 496).find("would overwrite v at byte 8192"), kNone);
    EXPECT_NE(with(&DeviceOffsets::o, 4096 - 1008).find("would overwrite k at byte 4096"), kNone);
    EXPECT_NE(with(&DeviceOffsets::o, 0).find("would overwrite q at byte 0"), kNone);
    EXPECT_NE(call(in_place(step, 1, good)).find("wrong_state"), kNone);
    EXPECT_NE(call(in_place(step, -1, good)).find("wrong_state"), kNone);
    EXPECT_NE(call(in_place(StepId{99}, 0, good)).find("not_found"), kNone);
    EXPECT_NE(call(in_place(step, 0, good), {}, kOther).find("not_found"), kNone);
    EXPECT_NE(call(in_place(step, 0, good), comm::Payload::copy_of(random_bytes(16))).find("tensors came twice"),
              kNone);
    wire::LayerRequest both = in_place(step, 0, good);
    both.set_shared_bytes(16);
    EXPECT_NE(call(both).find("tensors came twice"), kNone);
    EXPECT_EQ(bytes_, before);

    std::ranges::fill(bytes_, std::byte{0});
    const StepId other = begin(1, 2);
    for (int layer = 0; layer < 3; ++layer) compare_layer(other, step, layer, 2, true);
    EXPECT_EQ(end(step, MessageType::commit_step), "");
    EXPECT_EQ(end(other, MessageType::abort_step), "");
}

TEST_F(ClientMemory, ItIsLetGoWithItsConnectionAndTheLastCall) {
    ASSERT_EQ(share(kMemoryBytes), "");
    const StepId step = begin(1, 1);
    send(service_, MessageType::layer, in_place(step, 0, {0, 4096, 8192, 12288}), {}, kOwner);
    service_.connection_lost(kOwner);
    lead_.owner_lost(kOwner);
    EXPECT_FALSE(opened_[0].expired());  // the call waits
    apply_all();
    EXPECT_TRUE(opened_[0].expired());
    EXPECT_EQ(shard_.length_of(SequenceId{1}), 0);
    EXPECT_EQ(lead_.counters().steps_abandoned, 1u);
}

TEST_F(ClientMemory, AConnectionHasSeveralByNumber) {
    ASSERT_EQ(share(kMemoryBytes / 2), "");
    const StepId step = begin(1, 1);
    wire::LayerRequest request = in_place(step, 0, {0, 4096, 8192, kMemoryBytes / 2});
    request.set_device_memory(3);
    EXPECT_NE(call(request).find("wrong_state: this connection has shared no GPU memory 3"), std::string::npos);
    ASSERT_EQ(share(kMemoryBytes, kHandle, kElsewhere, kOwner, 3), "");
    EXPECT_EQ(call(request), "");  // which the first has no room for
    EXPECT_NE(share(16, kHandle, kElsewhere, kOwner, 16).find("invalid_argument: GPU memory 16"), std::string::npos);

    ASSERT_EQ(share(0, "", kElsewhere, kOwner, 0), "");
    EXPECT_TRUE(opened_[0].expired());
    EXPECT_FALSE(opened_[1].expired());
    EXPECT_EQ(end(step, MessageType::abort_step), "");
    service_.connection_lost(kOwner);
    EXPECT_TRUE(opened_[1].expired());
}

TEST_F(ClientMemory, AnotherOfTheSameNumberTakesItsPlace) {
    ASSERT_EQ(share(kMemoryBytes), "");
    EXPECT_NE(share(kMemoryBytes + 1), "");
    EXPECT_FALSE(opened_[0].expired());
    ASSERT_EQ(share(kMemoryBytes / 2), "");
    EXPECT_TRUE(opened_[0].expired());
    EXPECT_FALSE(opened_[1].expired());
    ASSERT_EQ(share(0, ""), "");
    EXPECT_TRUE(opened_[1].expired());
}

}  // namespace
}  // namespace kvgrid::worker
