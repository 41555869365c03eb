// Each message of the wire, as the process that gets it reads it. What can be read can be written and read again as the same.
//
//   input  u8 which message | its bytes

#include <array>

#include "client/from_wire.h"
#include "comm/wire/messages.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/operation_wire.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using fuzz::require;

template <class Message>
std::optional<Message> read(std::string_view bytes) {
    const comm::Frame frame{{.type = MessageType::operation}, std::string(bytes), {}};
    auto message = comm::unpack<Message>(frame);
    if (message) {
        const comm::Frame again{frame.header, comm::pack(*message), {}};
        const auto same = comm::unpack<Message>(again);
        require(same && comm::pack(*same) == again.message, "what was read is written and read as the same");
        return std::move(*message);
    }
    require(message.error() == Errc::corrupt, "what is no message is corrupt");
    return std::nullopt;
}

template <class Message>
void read_only(std::string_view bytes) {
    (void)read<Message>(bytes);
}

void read_error(std::string_view bytes) {
    const auto reply = read<wire::ErrorReply>(bytes);
    if (!reply) return;
    const Error error = comm::from_wire(*reply);
    const Error again = comm::from_wire(*read<wire::ErrorReply>(comm::pack(comm::to_wire(error))));
    require(again.code == error.code, "an error keeps its code");
    // Text of any bytes can be sent.
    const comm::Frame text{
        {.type = MessageType::error}, comm::pack(comm::to_wire({Errc::busy, std::string(bytes)})), {}};
    require(comm::unpack<wire::ErrorReply>(text).ok(), "an error with any text can be read");
}

void read_operation(std::string_view bytes) {
    const comm::Frame frame{{.type = MessageType::operation}, std::string(bytes), {}};
    const auto operation = worker::unpack_operation(frame);
    if (!operation) return;
    const comm::Frame again{frame.header, worker::pack_operation(*operation), {}};
    const auto same = worker::unpack_operation(again);
    require(same && worker::pack_operation(*same) == again.message, "an operation is written and read as the same");
}

void read_begin(std::string_view bytes) {
    const auto request = read<wire::BeginStepRequest>(bytes);
    if (request) (void)worker::begin_step_from(*request);
}

template <class Message>
void read_as_client(std::string_view bytes) {
    const auto reply = read<Message>(bytes);
    if (reply) (void)from_wire(*reply);
}

constexpr std::array kReaders{
    read_error,
    read_operation,
    read_begin,
    read_as_client<wire::StatusReply>,
    read_as_client<wire::ModelReply>,
    read_as_client<wire::OccupancyReply>,
    read_as_client<wire::InspectSequenceReply>,
    read_only<wire::RegisterModelRequest>,
    read_only<wire::OpenSequenceRequest>,
    read_only<wire::RegisterWorkerRequest>,
    read_only<wire::RegisterWorkerReply>,
    read_only<wire::HeartbeatRequest>,
    read_only<wire::HeartbeatReply>,
    read_only<wire::ListModelsReply>,
    read_only<wire::ListSequencesReply>,
    read_only<wire::GridAddModel>,
    read_only<wire::GridInventoryReply>,
    read_only<wire::StartTraceRequest>,
    read_as_client<wire::TraceReply>,
};

}  // namespace
}  // namespace kvgrid

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    kvgrid::fuzz::Input input(data, size);
    const std::size_t which = input.byte();
    if (which >= kvgrid::kReaders.size()) return -1;
    kvgrid::kReaders[which](input.text());
    return 0;
}
