// An operation reads back from the wire as it was sent, whichever its kind; what is no operation is refused.

#include <gtest/gtest.h>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "worker/operation_wire.h"

namespace kvgrid::worker {
namespace {

comm::Frame frame_of(const Operation& operation) {
    comm::Frame frame;
    frame.header.type = comm::MessageType::operation;
    frame.message = pack_operation(operation);
    frame.payload = operation.tensors;
    return frame;
}

ModelSpec small_spec() {
    ModelSpec spec{.name = "m",
                   .layers = {{0, 100, 4}, {0, 0, 0}},
                   .query_heads = 4,
                   .kv_heads = 2,
                   .head_dim = 64,
                   .dtype = Dtype::bf16,
                   .scale = 0.125};
    return validated(spec).value();
}

TEST(OperationWire, EveryKindComesBack) {
    const OperationBody bodies[] = {
        AddModel{ModelId{3}, small_spec(), {2, 1}, 12345},
        OpenSequence{SequenceId{4}, ModelId{3}, {10, 2}},
        ForkSequence{SequenceId{4}, SequenceId{5}, 128},
        CloseSequence{SequenceId{4}},
        TruncateSequence{SequenceId{4}, 77},
        SetWindow{SequenceId{4}, {9, 1}},
        BeginStep{StepId{8}, ModelId{3}, StepKind::write, {{SequenceId{4}, 5}, {SequenceId{6}, 7}}},
        RunLayer{{StepId{8}, StepId{9}}, 13},
        CommitStep{StepId{8}},
        AbortStep{StepId{9}},
        ReadKv{SequenceId{4}, 1, 100, 20},
        InspectSequence{SequenceId{4}},
        RewriteKv{SequenceId{4}, 1, 100, 20},
        ReportOccupancy{},
        StartTrace{3, std::chrono::milliseconds(500), 100},
        TakeTrace{},
        TakeInventory{},
        RunLayer{{StepId{8}}, 2, {}, {}, {7, {16, 32, 48, 64}}},
        RunLayer{{StepId{8}}, 3, {.q = true}},
        RunLayer{{StepId{8}}, 3, {.kv = true}},
        BeginStep{StepId{10}, ModelId{3}, StepKind::iterate, {{SequenceId{4}, 17}}},
        OpenClientMemory{7, {std::byte{1}, std::byte{2}}, 4096},
        CloseClientMemory{7}};
    std::uint64_t number = 40;
    for (const OperationBody& body : bodies) {
        const Operation sent{++number, body, comm::Payload::own(std::vector<std::byte>(3))};
        const auto read = unpack_operation(frame_of(sent));
        ASSERT_TRUE(read.ok()) << read.error().to_string();
        EXPECT_EQ(read->number, number);
        EXPECT_EQ(read->body.index(), body.index());
        EXPECT_EQ(read->tensors.size(), 3u);
        EXPECT_EQ(pack_operation(*read),
                  pack_operation(sent));  // every field: none would be written back if it were lost
    }
    const auto begin = std::get<BeginStep>(unpack_operation(frame_of({1, bodies[6], {}}))->body);
    EXPECT_EQ(begin.step, StepId{8});
    EXPECT_EQ(begin.kind, StepKind::write);
    ASSERT_EQ(begin.parts.size(), 2u);
    EXPECT_EQ(begin.parts[1].tokens, 7);
    EXPECT_EQ(std::get<AddModel>(unpack_operation(frame_of({1, bodies[0], {}}))->body).spec, small_spec());
}

TEST(OperationWire, WhatIsNoOperationIsRefused) {
    comm::Frame frame;
    frame.header.type = comm::MessageType::operation;
    EXPECT_EQ(unpack_operation(frame).error(), Errc::corrupt);  // empty: no body
    frame.message = "\xff\xff\xff";
    EXPECT_EQ(unpack_operation(frame).error(), Errc::corrupt);
    wire::OperationMessage message;
    message.mutable_add_model()->set_spec_json("{}");
    frame.message = comm::pack(message);
    EXPECT_FALSE(unpack_operation(frame).ok());
}

}  // namespace
}  // namespace kvgrid::worker
