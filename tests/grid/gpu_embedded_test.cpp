// A shard in the program that has the tensors: tensors in GPU memory give the bits that tensors in the host's memory give, and a program's own
// graph of a step's layers, replayed over many steps, gives what the same calls give without one. Each test runs the same steps on two
// shards: one on the program's stream, over GPU memory, and one that is called from the host, as the service does it, whose outputs the other
// tests compare with the reference.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <map>

#include "kernels/cuda/cuda_error.h"
#include "tests/grid/embedded_program.h"

namespace kvgrid::tests {
namespace {

using namespace worker;
using kernels::check_cuda;

int tokens_of(const Parts& parts) {
    int tokens = 0;
    for (const auto& part : parts) tokens += part.tokens;
    return tokens;
}

std::uint64_t calls_of(const DeviceStatus& status) {
    std::uint64_t calls = 0;
    for (const auto& path : status.attention_calls) calls += path.value;
    return calls;
}

class GpuEmbedded : public testing::Test {
  protected:
    static void open(Program& program, HostCalls& host, std::uint64_t count) {
        for (std::uint64_t id = 1; id <= count; ++id) {
            program.shard().open(SequenceId{id}, kModel, {}).value();
            host.shard().open(SequenceId{id}, kModel, {}).value();
        }
    }
    std::vector<LayerTensors> random_step(const ModelSpec& spec, int tokens) {
        std::vector<LayerTensors> layers;
        for (int layer = 0; layer < spec.layer_count(); ++layer) {
            layers.push_back(random_layer(random_, spec, layer, tokens, StepKind::attend));
        }
        return layers;
    }
    // A step whose layers are called one by one, without a graph.
    void compare_calls(Program& program, HostCalls& host, const ModelSpec& spec, const Parts& parts, bool is_whole) {
        const int tokens = tokens_of(parts);
        const auto tensors = random_step(spec, tokens);
        const auto expected = host.step(parts, tensors, is_whole);
        const StepId step = program.begin(parts);
        for (int layer = 0; layer < spec.layer_count(); ++layer) {
            program.put(layer, tensors[layer], tokens);
            ASSERT_TRUE(program.layer(step, layer, is_whole).ok());
        }
        ASSERT_TRUE(program.shard().commit(step).ok());
        for (int layer = 0; layer < spec.layer_count(); ++layer) {
            ASSERT_EQ(program.output(layer, tokens, is_whole), expected[layer]) << "layer " << layer;
        }
    }

    std::mt19937 random_{11};
};

TEST_F(GpuEmbedded, TensorsInGpuMemoryGiveTheSameBitsAsTheHosts) {
    for (const KvDtype kv_dtype : {KvDtype::as_model, KvDtype::fp8_e4m3}) {
        for (const bool deterministic : {false, true}) {
            ModelSpec spec = make_spec(3, 8, 2, 128, Dtype::bf16);
            spec.deterministic = deterministic;
            spec.kv_dtype = kv_dtype;
            Program program(spec);
            HostCalls host(spec);
            open(program, host, 2);
            const SequenceId a{1}, b{2};
            for (const bool is_whole : {true, false}) {
                for (const Parts& parts : {Parts{{a, 700}, {b, 5}}, Parts{{a, 1}, {b, 1}}, Parts{{a, 4}, {b, 90}},
                                           Parts{{b, 3}}, Parts{{a, 1}}}) {
                    compare_calls(program, host, spec, parts, is_whole);
                    if (HasFatalFailure()) return;
                }
            }
            EXPECT_EQ(program.status().layer_calls, 3u * 2 * 5);
            EXPECT_EQ(program.status().graph_captures, 0u);
            EXPECT_GT(program.status().kernel_ns, 0u);  // of the steps before the last one
        }
    }
}

// Decodes of two sequences, with a graph for each epoch. Half way one sequence grows by so much that units are cut otherwise, and at the end it is
// cut back, so that the first graph is good again.
TEST_F(GpuEmbedded, AGraphIsReplayedOverManySteps) {
    for (const bool deterministic : {false, true}) {
        ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
        spec.deterministic = deterministic;
        Program program(spec);
        HostCalls host(spec);
        open(program, host, 2);
        const SequenceId a{1}, b{2};
        compare_calls(program, host, spec, {{a, 7000}, {b, 20}}, true);  // buffers are as large as they come
        for (Shard* shard : {&program.shard(), &host.shard()}) shard->truncate(a, 40).value();

        std::map<std::uint64_t, GpuGraph> graphs;
        const Parts parts{{a, 1}, {b, 1}};
        std::uint64_t launches = 0;
        const auto decode = [&]() -> std::uint64_t {
            const auto tensors = random_step(spec, 2);
            const auto expected = host.step(parts, tensors, true);
            const StepId step = program.begin(parts);
            const std::uint64_t epoch = program.shard().prepare({&step, 1}).value();
            program.poison_outputs();
            for (int layer = 0; layer < 2; ++layer) program.put(layer, tensors[layer], 2);
            if (graphs.contains(epoch)) {
                program.shard().replay({&step, 1}, epoch).value();
            } else {
                graphs[epoch] = program.capture([&] {
                    for (int layer = 0; layer < 2; ++layer) program.layer(step, layer, true).value();
                });
            }
            graphs[epoch].launch(program.stream());
            ++launches;
            program.shard().commit(step).value();
            for (int layer = 0; layer < 2; ++layer) {
                EXPECT_EQ(program.output(layer, 2, true), expected[layer]) << "layer " << layer;
            }
            return epoch;
        };
        const std::uint64_t calls_before = calls_of(program.status());
        const std::uint64_t first = decode();
        for (int i = 0; i < 50; ++i) ASSERT_EQ(decode(), first) << "step " << i;
        EXPECT_EQ(graphs.size(), 1u);
        EXPECT_EQ(calls_of(program.status()) - calls_before, 2 * launches);

        const std::int64_t length = program.shard().length_of(a);
        compare_calls(program, host, spec, {{a, 7000}}, true);
        const std::uint64_t grown = decode();
        EXPECT_EQ(grown == first, deterministic);  // there units are always cut the same way
        for (int i = 0; i < 50; ++i) ASSERT_EQ(decode(), grown) << "step " << i;

        for (Shard* shard : {&program.shard(), &host.shard()}) shard->truncate(a, length).value();
        for (int i = 0; i < 10; ++i) EXPECT_EQ(decode(), first) << "step " << i;
        EXPECT_LE(graphs.size(), 2u);
        EXPECT_EQ(program.status().graph_captures, 0u);

        graphs.clear();
        program.drop();
        for (const auto& taken : program.status().memory_taken) EXPECT_EQ(taken.value, 0u) << taken.label;
        EXPECT_EQ(program.status().pinned_bytes, 0u);
    }
}

TEST_F(GpuEmbedded, WhatCannotBeCapturedIsRefusedAndNothingIsLost) {
    const ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
    Program program(spec);
    HostCalls host(spec);
    open(program, host, 2);
    compare_calls(program, host, spec, {{SequenceId{1}, 100}}, true);

    const Parts parts{{SequenceId{1}, 1}};
    const auto tensors = random_step(spec, 1);
    const auto expected = host.step(parts, tensors, true);
    const StepId step = program.begin(parts);
    for (int layer = 0; layer < 2; ++layer) program.put(layer, tensors[layer], 1);
    std::byte host_row[32768] = {};
    program.capture([&] {
        check_cuda(cudaMemsetAsync(program.tensors(0).whole.data(), 0, 16, program.stream().get()), "cudaMemsetAsync");
        EXPECT_EQ(program.layer(step, 0, true).error(), Errc::wrong_state);  // not prepared
        EXPECT_EQ(program.shard().prepare({&step, 1}).error(), Errc::wrong_state);
        EXPECT_EQ(program.shard().check_readable(SequenceId{1}, 0, 0, 1).error(), Errc::wrong_state);
        const BeginStep another{
            .step = StepId{99}, .model = kModel, .kind = StepKind::attend, .parts = {{SequenceId{2}, 1}}};
        EXPECT_EQ(program.shard().begin(another).error(), Errc::wrong_state);
    });
    const std::uint64_t epoch = program.shard().prepare({&step, 1}).value();
    EXPECT_EQ(program.shard().replay({&step, 1}, epoch + 1).error(), Errc::wrong_state);
    const std::size_t q = spec.row_bytes() * spec.query_heads, kv = spec.row_bytes() * spec.kv_heads;
    ShardLayer call{.steps = {&step, 1},
                    .layer = 0,
                    .q = {host_row, q},
                    .k = {host_row, kv},
                    .v = {host_row, kv},
                    .whole = {program.tensors(0).whole.data(), q},
                    .partial = {},
                    .lse = {},
                    .inputs_in = TensorMemory::host,
                    .outputs_in = TensorMemory::device};
    GpuGraph graph = program.capture([&] {
        EXPECT_EQ(program.shard().layer(call).error(), Errc::wrong_state);  // q in the host's memory
        ShardLayer waiting = call;
        waiting.q = {program.tensors(0).q.data(), q};
        waiting.k = {program.tensors(0).k.data(), kv};
        waiting.v = {program.tensors(0).v.data(), kv};
        waiting.inputs_in = TensorMemory::device;
        waiting.waits = true;
        EXPECT_EQ(program.shard().layer(waiting).error(), Errc::wrong_state);
        for (int layer = 0; layer < 2; ++layer) EXPECT_TRUE(program.layer(step, layer, true).ok());
    });
    graph.launch(program.stream());
    EXPECT_TRUE(program.shard().commit(step).ok());
    for (int layer = 0; layer < 2; ++layer) EXPECT_EQ(program.output(layer, 1, true), expected[layer]);

    const StepId next = program.begin(parts);
    call.steps = {&next, 1};
    call.inputs_in = TensorMemory::device;
    call.q = {program.tensors(0).q.data() + 2, q};
    EXPECT_EQ(program.shard().layer(call).error(), Errc::invalid_argument);
    EXPECT_TRUE(program.shard().abort(next).ok());
    compare_calls(program, host, spec, {{SequenceId{1}, 1}}, true);
}

TEST_F(GpuEmbedded, QFromTheHostMayMeetOutputsInGpuMemory) {
    const ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
    Program program(spec);
    HostCalls host(spec);
    open(program, host, 1);
    for (int i = 0; i < 20; ++i) {
        const Parts parts{{SequenceId{1}, i == 0 ? 300 : 1}};
        const int tokens = tokens_of(parts);
        const auto tensors = random_step(spec, tokens);
        const auto expected = host.step(parts, tensors, true);
        const StepId step = program.begin(parts);
        const std::size_t row = spec.row_bytes() * tokens, q = row * spec.query_heads, kv = row * spec.kv_heads;
        for (int layer = 0; layer < 2; ++layer) {
            const std::span<const std::byte> all(tensors[layer].bytes);
            const Status done = program.shard().layer({.steps = {&step, 1},
                                                       .layer = layer,
                                                       .q = all.first(q),
                                                       .k = all.subspan(q, kv),
                                                       .v = all.subspan(q + kv, kv),
                                                       .whole = {program.tensors(layer).whole.data(), q},
                                                       .partial = {},
                                                       .lse = {},
                                                       .inputs_in = TensorMemory::host,
                                                       .outputs_in = TensorMemory::device});
            ASSERT_TRUE(done.ok());
        }
        program.shard().commit(step).value();
        for (int layer = 0; layer < 2; ++layer) ASSERT_EQ(program.output(layer, tokens, true), expected[layer]);
    }
}

TEST_F(GpuEmbedded, DefaultStreamsAreRefused) {
    EXPECT_EQ(GpuDevice::make_on_stream(0, nullptr).error(), Errc::invalid_argument);
    EXPECT_EQ(GpuDevice::make_on_stream(0, cudaStreamLegacy).error(), Errc::invalid_argument);
    EXPECT_EQ(GpuDevice::make_on_stream(0, cudaStreamPerThread).error(), Errc::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::tests
