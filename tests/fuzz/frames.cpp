// A stream of bytes through the real reader of frames, in pieces of any size: it makes of them exactly the frames that stand there, and
// then an error that is not `internal`.
//
//   input  u8 size of the pieces that arrive (0: all at once) | the bytes of a connection

#include <sys/socket.h>

#include <boost/asio/detached.hpp>
#include <vector>

#include "comm/rpc/frame_stream.h"
#include "core/log.h"
#include "tests/fuzz/fuzz_target.h"

namespace kvgrid::comm {
namespace {

using fuzz::require;

constexpr std::size_t kFrameBytesMax = 1 << 20;  // an announced payload is allocated: not tried beyond this

struct Expected {
    std::vector<Frame> frames;
    bool too_large = false;
};

// The frames of a stream by the definition in wire/frame.h.
Expected frames_in(std::span<const std::byte> bytes) {
    Expected expected;
    while (bytes.size() >= kFrameHeaderBytes) {
        const auto header = decode(bytes.first<kFrameHeaderBytes>());
        if (!header) break;
        bytes = bytes.subspan(kFrameHeaderBytes);
        expected.too_large |= header->message_bytes + header->payload_bytes > kFrameBytesMax;
        if (bytes.size() < header->message_bytes + header->payload_bytes) break;
        Frame frame{*header, {}, Payload::copy_of(bytes.subspan(header->message_bytes, header->payload_bytes))};
        frame.message.assign(reinterpret_cast<const char*>(bytes.data()), header->message_bytes);
        expected.frames.push_back(std::move(frame));
        bytes = bytes.subspan(header->message_bytes + header->payload_bytes);
    }
    return expected;
}

struct Outcome {
    std::vector<Frame> frames;
    std::optional<Error> end;
};

Task<> read_all(std::shared_ptr<FrameStream> stream, Outcome& outcome) {
    while (!outcome.end) {
        auto frame = co_await stream->read();
        if (frame) {
            outcome.frames.push_back(std::move(*frame));
        } else {
            outcome.end = frame.error();
        }
    }
    stream->close();
}

bool same(const Frame& a, const Frame& b) {
    return a.header.type == b.header.type && a.header.generation == b.header.generation &&
           a.header.request == b.header.request && a.header.timeout_ms == b.header.timeout_ms &&
           a.message == b.message && std::ranges::equal(a.payload.bytes(), b.payload.bytes());
}

void write_in_pieces(asio::io_context& context, int fd, std::span<const std::byte> bytes, std::size_t piece) {
    while (!bytes.empty()) {
        const auto part = bytes.first(std::min(piece, bytes.size()));
        const ssize_t count = ::send(fd, part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count > 0) bytes = bytes.subspan(static_cast<std::size_t>(count));
        if (count <= 0 && errno != EAGAIN) return;  // the reader has closed
        context.poll();
    }
}

void run(std::span<const std::byte> bytes, std::size_t piece, const Expected& expected) {
    int ends[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "a socket pair can be made");
    asio::io_context context(1);
    Outcome outcome;
    {
        Socket socket(context.get_executor());
        socket.assign(asio::generic::stream_protocol(AF_UNIX, 0), ends[0]);
        auto stream = std::make_shared<FrameStream>(
            std::move(socket), FrameStream::Limits{.unsent_bytes_max = 1 << 20, .frame_timeout = std::chrono::hours(1)},
            std::make_shared<std::atomic<std::size_t>>(0));
        asio::co_spawn(context, read_all(std::move(stream), outcome), asio::detached);
    }
    context.poll();
    write_in_pieces(context, ends[1], bytes, piece);
    ::shutdown(ends[1], SHUT_WR);
    context.run();
    ::close(ends[1]);

    require(outcome.end && !(*outcome.end == Errc::internal), "a stream ends with an error that has a reason");
    require(std::ranges::equal(outcome.frames, expected.frames, same), "the frames are those that stand there");
}

}  // namespace
}  // namespace kvgrid::comm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    kvgrid::fuzz::Input input(data, size);
    const std::size_t piece = input.byte();
    const auto bytes = input.take(size);
    const auto expected = kvgrid::comm::frames_in(bytes);
    if (expected.too_large) return -1;
    kvgrid::comm::run(bytes, piece == 0 ? size : piece, expected);
    return 0;
}
