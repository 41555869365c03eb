// Writes the corpora's first inputs: what real clients, workers and files look like.
//
//   fuzz_seeds FOLDER        FOLDER/TARGET/NAME; what is there already is replaced

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "analysis/safetensors.h"
#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "core/model_spec.h"
#include "worker/operation_wire.h"

namespace kvgrid::fuzz {
namespace {

using comm::MessageType;

struct Folder {
    std::filesystem::path path;

    void write(const std::string& target, const std::string& name, const std::string& bytes) const {
        std::filesystem::create_directories(path / target);
        std::ofstream(path / target / name, std::ios::binary) << bytes;
    }
};

std::string frame(MessageType type, std::uint64_t request, const std::string& message, std::size_t payload = 0) {
    const auto header = comm::encode({.type = type,
                                      .generation = 3,
                                      .request = request,
                                      .message_bytes = static_cast<std::uint32_t>(message.size()),
                                      .timeout_ms = 30'000,
                                      .payload_bytes = payload});
    return std::string(reinterpret_cast<const char*>(header.data()), header.size()) + message +
           std::string(payload, 'p');
}

template <class Message, class Fill>
std::string made(Fill fill) {
    Message message;
    fill(message);
    return comm::pack(message);
}

std::string begin(std::vector<std::pair<std::uint64_t, int>> parts, wire::StepKind kind = wire::ATTEND) {
    return made<wire::BeginStepRequest>([&](auto& request) {
        request.set_model(1);
        request.set_kind(kind);
        for (const auto& [sequence, tokens] : parts) {
            request.add_parts()->set_sequence(sequence);
            request.mutable_parts()->rbegin()->set_tokens(tokens);
        }
    });
}

std::string layer(std::uint64_t step, int index) {
    return made<wire::LayerRequest>([&](auto& request) {
        request.set_step(step);
        request.set_layer(index);
    });
}

std::string step(std::uint64_t id) {
    return made<wire::StepRequest>([&](auto& request) { request.set_step(id); });
}

std::string sequence(std::uint64_t id) {
    return made<wire::SequenceRequest>([&](auto& request) { request.set_sequence(id); });
}

void write_frames(const Folder& folder) {
    const std::string status = frame(MessageType::status, 1, "");
    const std::string steps = frame(MessageType::begin_step, 2, begin({{1, 3}})) +
                              frame(MessageType::layer, 3, layer(1, 0), 3 * 512) +
                              frame(MessageType::commit_step, 4, step(1));
    folder.write("frames", "status", std::string(1, '\0') + status);
    folder.write("frames", "step_at_once", std::string(1, '\0') + steps);
    folder.write("frames", "step_in_pieces", std::string(1, '\x07') + steps);
    folder.write("frames", "long_message",
                 std::string(1, '\x64') + frame(MessageType::register_model, 5, std::string(70'000, ' ')));
    std::string other = status;
    other[4] = 2;
    folder.write("frames", "other_version", std::string(1, '\0') + status + other);
    folder.write("frames", "answers",
                 std::string(1, '\x28') + frame(MessageType::empty, 1, "") + frame(MessageType::error, 0, ""));
}

ModelSpec small_spec() {
    return parse_model_spec(R"({"name":"m","layers":2,"query_heads":2,"kv_heads":1,"head_dim":32,"dtype":"bf16"})")
        .value();
}

void write_messages(const Folder& folder) {
    const auto put = [&](int which, const std::string& name, const std::string& bytes) {
        folder.write("messages", name, std::string(1, static_cast<char>(which)) + bytes);
    };
    put(0, "error", comm::pack(comm::to_wire({Errc::no_room, "needs 6 pages, 2 are free"})));
    int number = 0;
    using namespace worker;
    for (const OperationBody& body : std::initializer_list<OperationBody>{
             AddModel{ModelId{1}, small_spec(), {1, 2}, 1 << 20}, OpenSequence{SequenceId{1}, ModelId{1}, {100, 4}},
             ForkSequence{SequenceId{1}, SequenceId{2}, 64}, CloseSequence{SequenceId{1}},
             TruncateSequence{SequenceId{1}, 9}, SetWindow{SequenceId{1}, {64, 2}},
             BeginStep{StepId{4}, ModelId{1}, StepKind::write, {{SequenceId{1}, 7}}},
             RunLayer{{StepId{4}, StepId{5}}, 1}, CommitStep{StepId{4}}, AbortStep{StepId{4}},
             ReadKv{SequenceId{1}, 0, 3, 4}, InspectSequence{SequenceId{1}}, ReportOccupancy{},
             OpenClientMemory{7, {std::byte{1}}, 4096}, CloseClientMemory{7},
             RunLayer{{StepId{4}}, 1, {}, {}, {7, {16, 32, 48, 64}}}}) {
        ++number;
        put(1, "operation_" + std::to_string(number), pack_operation({static_cast<std::uint64_t>(number), body, {}}));
    }
    put(2, "begin", begin({{1, 3}, {2, 1}}));
    put(3, "status_reply", made<wire::StatusReply>([](auto& reply) {
            reply.set_generation(3);
            reply.set_ready(true);
            reply.set_version("0.1.0");
            auto& worker = *reply.add_workers();
            worker.set_worker(1);
            worker.set_rank(-1);
            worker.set_endpoint("unix:/tmp/kvgrid/worker-0.sock");
            worker.add_models()->set_capacity_pages(64);
        }));
    put(4, "model_reply", made<wire::ModelReply>([](auto& reply) {
            reply.set_model(1);
            reply.set_spec_json(to_json(small_spec()));
            reply.set_head_parts(1);
        }));
    put(5, "occupancy_reply", made<wire::OccupancyReply>([](auto& reply) {
            reply.add_workers()->add_models()->set_free_pages(64);
            reply.set_join_bytes(1'000'000);
        }));
    put(6, "inspect_reply", made<wire::InspectSequenceReply>([](auto& reply) { reply.add_pages_by_rank(3); }));
    put(9, "register_worker", made<wire::RegisterWorkerRequest>([](auto& request) {
            request.set_incarnation(0x1234567890abcdef);
            request.set_endpoint("127.0.0.1:40001");
            request.set_host("host");
            request.set_memory_bytes(1 << 30);
        }));
    put(12, "heartbeat_reply", made<wire::HeartbeatReply>([](auto& reply) {
            reply.mutable_membership()->add_members()->set_endpoint("[::1]:7070");
        }));
}

// A request as requests.cpp takes it.
std::string request(int type, const std::string& message, std::size_t payload = 0) {
    std::string bytes{static_cast<char>(type), static_cast<char>(message.size())};
    bytes += message;
    bytes += static_cast<char>(payload & 0xff);
    bytes += static_cast<char>(payload >> 8);
    return bytes + '\x3c';  // 0x3c3c3c3c is 0.01
}

// Bytes of q, k and v of the model in requests.cpp.
std::size_t tensors(int layer_index, int tokens) {
    return static_cast<std::size_t>(tokens) * (layer_index == 2 ? 256 : 512);
}

void write_requests(const Folder& folder) {
    enum {
        begin_step,
        layer_call,
        commit,
        abort_step,
        read,
        truncate,
        window,
        occupancy,
        inspect,
        open,
        fork,
        close,
        add
    };
    const auto whole_step = [](std::uint64_t id, std::uint64_t of, int tokens) {
        std::string bytes = request(begin_step, begin({{of, tokens}}));
        for (int index = 0; index < 3; ++index) bytes += request(layer_call, layer(id, index), tensors(index, tokens));
        return bytes + request(commit, step(id));
    };
    folder.write("requests", "one_step", whole_step(1, 1, 5));
    folder.write("requests", "fork_and_write",
                 whole_step(1, 1, 70) + request(fork, made<wire::GridFork>([](auto& message) {
                                                    message.set_source(1);
                                                    message.set_target(7);
                                                })) +
                     whole_step(2, 7, 3) + whole_step(3, 1, 3) + request(close, sequence(1)) +
                     request(inspect, sequence(7)));
    folder.write("requests", "windows",
                 request(window, made<wire::SetWindowRequest>([](auto& message) {
                             message.set_sequence(2);
                             message.set_window(64);
                             message.set_sinks(4);
                         })) +
                     whole_step(1, 2, 100) + whole_step(2, 2, 100) +
                     request(truncate, made<wire::TruncateRequest>([](auto& message) {
                                 message.set_sequence(2);
                                 message.set_length(190);
                             })) +
                     request(read, made<wire::ReadKvRequest>([](auto& message) {
                                 message.set_sequence(2);
                                 message.set_first_token(150);
                                 message.set_token_count(20);
                             })));
    folder.write("requests", "write_step_left_open",
                 request(begin_step, begin({{1, 9}, {2, 4}}, wire::WRITE)) +
                     request(layer_call, layer(1, 0), 13 * 256) + request(occupancy, "") +
                     request(begin_step, begin({{1, 1}})));
    folder.write("requests", "aborted",
                 request(begin_step, begin({{1, 64}})) + request(abort_step, step(1)) + request(commit, step(1)) +
                     request(begin_step, begin({{1, 60'000}})));
    folder.write("requests", "second_model",
                 request(add, made<wire::GridAddModel>([](auto& message) {
                             message.set_model(2);
                             message.set_spec_json(
                                 R"({"name":"n","layers":1,"query_heads":1,"kv_heads":1,"head_dim":32,"dtype":"f16"})");
                             message.set_head_parts(1);
                             message.set_sequence_parts(1);
                             message.set_pool_bytes_per_worker(1 << 20);
                         })) +
                     request(open, made<wire::GridOpen>([](auto& message) {
                                 message.set_sequence(9);
                                 message.set_model(2);
                             })) +
                     request(close, sequence(9)));
}

// Events as coordinator.cpp takes them.
std::string event(int kind, int connection, const std::string& message) {
    return std::string{static_cast<char>(kind), static_cast<char>(connection), static_cast<char>(message.size())} +
           message;
}
std::string time_passes(int tenths) {
    return std::string{'\x0d', static_cast<char>(tenths)};
}

void write_coordinator_events(const Folder& folder) {
    enum { status, model, models, open, fork, close, sequences, worker, heartbeat, stray, keep, give_up, lost };
    const auto registered = [&](int number) {
        return event(worker, number, made<wire::RegisterWorkerRequest>([&](auto& request) {
                         request.set_incarnation(100 + number);
                         request.set_endpoint("unix:/tmp/w");
                         request.set_host("h");
                         request.set_process_id(number);
                         request.set_mpi_rank(number - 1);
                         request.set_memory_bytes(1 << 20);
                     }));
    };
    const auto beat = [&](int number, std::uint64_t generation) {
        return event(heartbeat, number, made<wire::HeartbeatRequest>([&](auto& request) {
                         request.set_worker(number);
                         request.set_generation(generation);
                         request.set_ready(true);
                     }));
    };
    const std::string grid = registered(1) + registered(2) + beat(1, 1) + beat(2, 1) + event(status, 0, "");
    folder.write("coordinator", "a_grid", grid + time_passes(5) + beat(1, 1) + time_passes(30) + event(status, 0, ""));
    folder.write(
        "coordinator", "a_model",
        grid + event(model, 0, made<wire::RegisterModelRequest>([](auto& request) {
                         request.set_spec_json(
                             R"({"name":"n","layers":1,"query_heads":1,"kv_heads":1,"head_dim":32,"dtype":"f16"})");
                     })) +
            event(models, 0, "") + event(open, 0, made<wire::OpenSequenceRequest>([](auto& request) {
                                             request.set_model(1);
                                             request.set_tenant("t");
                                             request.add_prefix(std::string(32, 'p'));
                                         })) +
            event(keep, 0, made<wire::KeepSequenceRequest>([](auto& request) {
                      request.set_sequence(1);
                      request.add_prefix(std::string(32, 'p'));
                  })) +
            event(give_up, 0, made<wire::GiveUpPrefixRequest>([](auto& request) { request.set_model(1); })) +
            event(sequences, 0, ""));
    folder.write("coordinator", "a_worker_that_goes",
                 grid + std::string{static_cast<char>(lost), '\x01'} + registered(1) + event(stray, 3, "") +
                     event(fork, 0, sequence(1)) + event(close, 0, sequence(1)));
}

void write_model_specs(const Folder& folder) {
    const auto put = [&](char form, const std::string& name, const std::string& text) {
        folder.write("model_spec", name, form + text);
    };
    put('\0', "all_fields",
        R"({"name":"m","layers":4,"kv_layer_of":[0,1,1,0],"query_heads":8,"kv_heads":2,"head_dim":64,"dtype":"bf16",)"
        R"("window":[0,128,128,0],"sinks":[0,4,4,0],"scale":0.125,"logit_soft_cap":50,"non_finite":"allow"})");
    put('\0', "notation",
        R"({"name":"m","layers":4,"kv_layer_of":"0_1s_1s_0","query_heads":8,"kv_heads":2,"head_dim":64,"dtype":"f16"})");
    put('\1', "llama",
        R"({"architectures":["LlamaForCausalLM"],"hidden_size":576,"model_type":"llama","num_attention_heads":9,)"
        R"("num_hidden_layers":30,"num_key_value_heads":3,"rope_theta":100000,"torch_dtype":"bfloat16","vocab_size":49152})");
    put('\1', "gemma2",
        R"({"model_type":"gemma2","hidden_size":2304,"num_attention_heads":8,"num_hidden_layers":26,)"
        R"("num_key_value_heads":4,"head_dim":256,"query_pre_attn_scalar":256,"attn_logit_softcapping":50.0,)"
        R"("sliding_window":4096,"torch_dtype":"float32"})");
    put('\1', "gemma3",
        R"({"model_type":"gemma3","text_config":{"model_type":"gemma3_text","hidden_size":2560,"num_attention_heads":8,)"
        R"("num_hidden_layers":34,"num_key_value_heads":4,"head_dim":256,"sliding_window":1024,"sliding_window_pattern":6,)"
        R"("query_pre_attn_scalar":256},"torch_dtype":"bfloat16"})");
    put('\1', "qwen3",
        R"({"model_type":"qwen3","hidden_size":1024,"num_attention_heads":16,"num_hidden_layers":28,)"
        R"("num_key_value_heads":8,"head_dim":128,"use_sliding_window":false,"max_window_layers":28,"torch_dtype":"bfloat16"})");
    put('\1', "mistral",
        R"({"model_type":"mistral","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":32,)"
        R"("num_key_value_heads":8,"sliding_window":4096,"torch_dtype":"bfloat16"})");
    put('\2', "lckv", std::string("\x04\x00", 2) + "0_1s_1s_0");
}

// The form of tests/data's trace, with one layer of two tokens.
void write_safetensors(const Folder& folder) {
    const auto floats = [](std::size_t count) { return std::vector<float>(count, 0.5f); };
    const std::vector<float> q = floats(2 * 2 * 32), k = floats(2 * 32), v = floats(2 * 32), o = floats(2 * 2 * 32);
    const std::vector<std::int32_t> tokens{1, 2};
    using analysis::TensorType;
    const std::vector<analysis::TensorData> tensors{
        {"tokens", TensorType::i32, {2}, std::as_bytes(std::span(tokens))},
        {"layer.5.q", TensorType::f32, {2, 2, 32}, std::as_bytes(std::span(q))},
        {"layer.5.k", TensorType::f32, {2, 1, 32}, std::as_bytes(std::span(k))},
        {"layer.5.v", TensorType::f32, {2, 1, 32}, std::as_bytes(std::span(v))},
        {"layer.5.o", TensorType::f32, {2, 2, 32}, std::as_bytes(std::span(o))}};
    const auto put = [&](const std::string& name, const auto& metadata, const auto& list) {
        const auto bytes = analysis::safetensors_bytes(metadata, list).value();
        folder.write("safetensors", name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    };
    using Metadata = std::map<std::string, std::string>;
    put("trace",
        Metadata{{"kvgrid.trace", "1"},
                 {"model", "m"},
                 {"license", "none"},
                 {"query_heads", "2"},
                 {"kv_heads", "1"},
                 {"head_dim", "32"},
                 {"scale", "0.25"},
                 {"dtype", "f32"},
                 {"layers", "5"},
                 {"prefill_tokens", "1"},
                 {"decode_tokens", "1"}},
        tensors);
    const std::vector<analysis::TensorData> odd{{"scalar", TensorType::f64, {}, std::as_bytes(std::span(tokens))},
                                                {"none", TensorType::bf16, {3, 0}, {}}};
    put("scalar_and_empty", Metadata{}, odd);
    put("no_tensors", Metadata{}, std::vector<analysis::TensorData>{});
}

}  // namespace
}  // namespace kvgrid::fuzz

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    const kvgrid::fuzz::Folder folder{argv[1]};
    kvgrid::fuzz::write_frames(folder);
    kvgrid::fuzz::write_messages(folder);
    kvgrid::fuzz::write_requests(folder);
    kvgrid::fuzz::write_coordinator_events(folder);
    kvgrid::fuzz::write_model_specs(folder);
    kvgrid::fuzz::write_safetensors(folder);
    return 0;
}
