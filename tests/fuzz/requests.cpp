// Requests of a client and of a coordinator, one after the other, to a real lead with a real shard: whatever they ask, each is answered
// once, the pages are conserved, and when the client is gone and the sequences are closed, all of them are free.
//
//   input  requests: u8 type (of kTypes) | u8 message bytes | message | u16 payload bytes | u8 what the payload is filled with
//
// A small model (1) and two sequences (1, 2) are there from the beginning. 64 requests at most: time is better spent on others.

#include <array>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "core/log.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/grid_of_one.h"

namespace kvgrid::fuzz {
namespace {

using comm::MessageType;

constexpr std::uint64_t kMemoryBytes = 4 << 20;
constexpr std::uint64_t kPoolBytes = 1 << 20;
constexpr int kRequestsMax = 64;

constexpr std::array kTypes{MessageType::begin_step,     MessageType::layer,     MessageType::commit_step,
                            MessageType::abort_step,     MessageType::read_kv,   MessageType::truncate,
                            MessageType::set_window,     MessageType::occupancy, MessageType::inspect_sequence,
                            MessageType::grid_open,      MessageType::grid_fork, MessageType::grid_close,
                            MessageType::grid_add_model, MessageType::heartbeat, MessageType::rewrite_kv};

comm::Frame frame_of(MessageType type, std::string message, comm::Payload payload = {}) {
    return {{.type = type, .generation = GridOfOne::kGeneration.value, .request = 1},
            std::move(message),
            std::move(payload)};
}

// 64 pages: two layers (the second one reads the first one's KV in a third), 2 query heads, 1 KV head of 32, f32.
void prepare(GridOfOne& grid) {
    wire::GridAddModel add;
    add.set_model(1);
    add.set_spec_json(R"({"name":"m","layers":3,"kv_layer_of":[0,1,0],"window":[0,100,0],"query_heads":2,"kv_heads":1,)"
                      R"("head_dim":32,"dtype":"f32"})");
    add.set_head_parts(1);
    add.set_sequence_parts(1);
    add.set_pool_bytes_per_worker(kPoolBytes);
    grid.handle(frame_of(MessageType::grid_add_model, comm::pack(add)));
    for (const std::uint64_t sequence : {1, 2}) {
        wire::GridOpen open;
        open.set_sequence(sequence);
        open.set_model(1);
        grid.handle(frame_of(MessageType::grid_open, comm::pack(open)));
    }
}

void run(Input input) {
    GridOfOne grid(kMemoryBytes);
    prepare(grid);
    for (int request = 0; request < kRequestsMax && !input.empty(); ++request) {
        const MessageType type = kTypes[input.byte() % kTypes.size()];
        std::string message(input.text(input.byte()));
        std::vector<std::byte> payload(input.two_bytes());
        std::ranges::fill(payload, static_cast<std::byte>(input.byte()));
        grid.handle(frame_of(type, std::move(message), comm::Payload::own(std::move(payload))));
    }
    grid.end();
}

}  // namespace
}  // namespace kvgrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    kvgrid::fuzz::run({data, size});
    return 0;
}
