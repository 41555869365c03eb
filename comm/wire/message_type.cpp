#include "comm/wire/message_type.h"

#include <algorithm>
#include <array>

namespace kvgrid::comm {
namespace {

constexpr std::uint32_t kSmall = 64 << 10;  // a few numbers and names
constexpr std::uint32_t kMedium =
    1 << 20;  // a model spec, a number for each sequence of a step, or a name for each page of a prompt
constexpr std::uint32_t kList = 16 << 20;        // an entry for each worker, model or sequence
constexpr std::uint32_t kTrace = 64 << 20;       // some 25 bytes for each span of each rank
constexpr std::uint32_t kInventory = 256 << 20;  // an entry for each sequence of a grid: some millions
constexpr std::uint64_t kTensors = std::uint64_t{4} << 30;

enum class Role { request, reply };

struct Row {
    MessageType type;
    const char* name;
    Role role;
    std::uint32_t message_bytes_max;
    std::uint64_t payload_bytes_max = 0;
};

using enum MessageType;
using enum Role;

constexpr std::array kRows{
    Row{error, "error", reply, kSmall},
    Row{empty, "empty", reply, kSmall},
    Row{status, "status", request, kSmall},
    Row{status_reply, "status_reply", reply, kList},
    Row{register_model, "register_model", request, kMedium},
    Row{model_reply, "model_reply", reply, kMedium},
    Row{list_models, "list_models", request, kSmall},
    Row{list_models_reply, "list_models_reply", reply, kList},
    Row{open_sequence, "open_sequence", request, kMedium},
    Row{fork_sequence, "fork_sequence", request, kSmall},
    Row{close_sequence, "close_sequence", request, kSmall},
    Row{list_sequences, "list_sequences", request, kSmall},
    Row{list_sequences_reply, "list_sequences_reply", reply, kList},
    Row{sequence_reply, "sequence_reply", reply, kSmall},
    Row{keep_sequence, "keep_sequence", request, kMedium},
    Row{give_up_prefix, "give_up_prefix", request, kSmall},
    Row{register_worker, "register_worker", request, kSmall},
    Row{register_worker_reply, "register_worker_reply", reply, kList},
    Row{heartbeat, "heartbeat", request, kMedium},
    Row{heartbeat_reply, "heartbeat_reply", reply, kList},
    Row{grid_add_model, "grid_add_model", request, kMedium},
    Row{grid_open, "grid_open", request, kSmall},
    Row{grid_fork, "grid_fork", request, kSmall},
    Row{grid_close, "grid_close", request, kSmall},
    Row{grid_add_model_reply, "grid_add_model_reply", reply, kSmall},
    Row{grid_inventory, "grid_inventory", request, kSmall},
    Row{grid_inventory_reply, "grid_inventory_reply", reply, kInventory},
    Row{begin_step, "begin_step", request, kMedium},
    Row{begin_step_reply, "begin_step_reply", reply, kMedium},
    Row{layer, "layer", request, kSmall, kTensors},
    Row{layer_reply, "layer_reply", reply, kSmall, kTensors},
    Row{commit_step, "commit_step", request, kSmall},
    Row{abort_step, "abort_step", request, kSmall},
    Row{read_kv, "read_kv", request, kSmall},
    Row{read_kv_reply, "read_kv_reply", reply, kSmall, kTensors},
    Row{truncate, "truncate", request, kSmall},
    Row{set_window, "set_window", request, kSmall},
    Row{inspect_sequence, "inspect_sequence", request, kSmall},
    Row{inspect_sequence_reply, "inspect_sequence_reply", reply, kMedium},
    Row{occupancy, "occupancy", request, kSmall},
    Row{occupancy_reply, "occupancy_reply", reply, kList},
    Row{start_trace, "start_trace", request, kSmall},
    Row{take_trace, "take_trace", request, kSmall},
    Row{trace_reply, "trace_reply", reply, kTrace},
    Row{share_memory, "share_memory", request, kSmall},
    Row{share_device_memory, "share_device_memory", request, kSmall},
    Row{share_ring, "share_ring", request, kSmall},
    Row{look, "look", request, kSmall},
    Row{rewrite_kv, "rewrite_kv", request, kSmall, kTensors},
    Row{link_hello, "link_hello", request, kSmall},
    Row{operation, "operation", request, kList, kTensors},  // may hold a begin_step or a grid_add_model
};
static_assert(std::ranges::is_sorted(kRows, {}, &Row::type), "find_row searches by halves");

const Row* find_row(MessageType type) {
    const auto row = std::ranges::lower_bound(kRows, type, {}, &Row::type);
    return row != kRows.end() && row->type == type ? &*row : nullptr;
}

}  // namespace

std::optional<MessageLimits> limits_of(std::uint16_t type) {
    const Row* row = find_row(MessageType{type});
    if (row == nullptr) return std::nullopt;
    return MessageLimits{row->name, row->message_bytes_max, row->payload_bytes_max};
}

const char* name_of(MessageType type) {
    const Row* row = find_row(type);
    return row == nullptr ? "unknown" : row->name;
}

bool is_request(MessageType type) {
    const Row* row = find_row(type);
    return row != nullptr && row->role == request;
}

}  // namespace kvgrid::comm
