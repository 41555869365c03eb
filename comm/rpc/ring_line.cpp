#include "comm/rpc/ring_line.h"

#include "comm/rpc/frame_stream.h"

namespace kvgrid::comm {

RingLine::RingLine(std::shared_ptr<SharedRegion> region, FrameRing::Side side, std::shared_ptr<FrameStream> stream,
                   Handlers handlers)
    : ring_(std::move(region), side), stream_(std::move(stream)), handlers_(std::move(handlers)) {}

bool RingLine::send(const FrameHeader& header, std::string_view message) {
    if (closed_) return false;
    const FrameRing::Sent sent = ring_.send(header, message);
    if (sent == FrameRing::Sent::unseen) stream_->send({.type = MessageType::look}, {}, {});
    return sent != FrameRing::Sent::no;
}

// Others get their turn between two looks.
bool RingLine::look() {
    bool found = false;
    for (std::size_t taken = 0; taken < FrameRing::kFrames && holds_frame() && handlers_.may_take(); ++taken) {
        found = true;
        auto frame = ring_.receive();
        if (frame->ok()) {
            handlers_.on_frame(**std::move(frame));
        } else {
            close();
            handlers_.on_corrupt(frame->error());
        }
    }
    return found;
}

}  // namespace kvgrid::comm
