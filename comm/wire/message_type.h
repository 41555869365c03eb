#pragma once

#include <cstdint>
#include <optional>

namespace kvgrid::comm {

// What a frame carries. The numbers are the wire protocol: append, never renumber. Each request is answered by the type named
// beside it, or by `error`.
enum class MessageType : std::uint16_t {
    error = 1,  // ErrorReply
    empty = 2,  // Empty: done, nothing to say

    // client -> coordinator
    status = 16,  // StatusRequest -> status_reply
    status_reply = 17,
    register_model = 18,  // RegisterModelRequest -> model_reply
    model_reply = 19,
    list_models = 20,  // Empty -> list_models_reply
    list_models_reply = 21,
    open_sequence = 22,   // OpenSequenceRequest -> sequence_reply
    fork_sequence = 23,   // SequenceRequest -> sequence_reply
    close_sequence = 24,  // SequenceRequest -> empty
    list_sequences = 25,  // ListSequencesRequest -> list_sequences_reply
    list_sequences_reply = 26,
    sequence_reply = 27,
    keep_sequence = 28,   // KeepSequenceRequest -> empty
    give_up_prefix = 29,  // GiveUpPrefixRequest -> empty

    // worker -> coordinator
    register_worker = 32,  // RegisterWorkerRequest -> register_worker_reply
    register_worker_reply = 33,
    heartbeat = 34,  // HeartbeatRequest -> heartbeat_reply
    heartbeat_reply = 35,

    // coordinator -> lead
    grid_add_model = 48,  // GridAddModel -> grid_add_model_reply
    grid_open = 49,       // GridOpen -> empty
    grid_fork = 50,       // GridFork -> empty
    grid_close = 51,      // GridClose -> empty
    grid_add_model_reply = 52,
    grid_inventory = 53,  // GridInventoryRequest -> grid_inventory_reply
    grid_inventory_reply = 54,

    // client -> lead
    begin_step = 64,  // BeginStepRequest -> begin_step_reply
    begin_step_reply = 65,
    layer = 66,  // LayerRequest + q, k, v -> layer_reply + o
    layer_reply = 67,
    commit_step = 68,  // StepRequest -> empty
    abort_step = 69,   // StepRequest -> empty
    read_kv = 70,      // ReadKvRequest -> read_kv_reply + k, v
    read_kv_reply = 71,
    truncate = 72,          // TruncateRequest -> empty
    set_window = 73,        // SetWindowRequest -> empty
    inspect_sequence = 74,  // SequenceRequest -> inspect_sequence_reply
    inspect_sequence_reply = 75,
    occupancy = 76,  // Empty -> occupancy_reply
    occupancy_reply = 77,
    start_trace = 78,  // StartTraceRequest -> empty
    take_trace = 79,   // Empty -> trace_reply
    trace_reply = 80,
    share_memory = 81,         // ShareMemoryRequest -> empty
    share_device_memory = 82,  // ShareDeviceMemoryRequest -> empty

    // within a connection
    share_ring = 83,  // ShareMemoryRequest -> empty
    look = 84,        // Empty, in either direction and without reply: a frame is in the ring

    // client -> lead
    rewrite_kv = 85,  // RewriteKvRequest + k, v -> empty

    // lead -> peers: numbered operations, in order, without reply
    link_hello = 96,  // LinkHello -> empty
    operation = 97,   // OperationMessage + tensors
};

struct MessageLimits {
    const char* name;
    std::uint32_t message_bytes_max;
    std::uint64_t payload_bytes_max;
};

// Name and size limits of a type; nothing for a number that is no type.
std::optional<MessageLimits> limits_of(std::uint16_t type);

// "layer_reply", as it stands in messages and logs.
const char* name_of(MessageType type);

// Whether it may be sent to a Server. The other types only answer.
bool is_request(MessageType type);

}  // namespace kvgrid::comm
