#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "comm/rpc/frame_ring.h"

namespace kvgrid::comm {

class FrameStream;

// A connection's ring, which whoever does the work of its IoThread looks at as it looks at sockets. I/O thread only.
class RingLine {
  public:
    struct Handlers {
        std::function<bool()> may_take;  // false: nothing is taken now; `look` again when that changes
        std::function<void(Frame)> on_frame;
        std::function<void(const Error&)> on_corrupt;  // nothing more is read
    };

    RingLine(std::shared_ptr<SharedRegion> region, FrameRing::Side side, std::shared_ptr<FrameStream> stream,
             Handlers handlers);

    // False: it has to go through the stream.
    bool send(const FrameHeader& header, std::string_view message);

    bool look();  // whether there was anything
    bool holds_frame() const { return !closed_ && ring_.holds_frame(); }
    void set_looking(bool looking) { ring_.set_looking(looking); }
    void close() { closed_ = true; }

  private:
    FrameRing ring_;
    const std::shared_ptr<FrameStream> stream_;  // of the same connection
    const Handlers handlers_;
    bool closed_ = false;
};

}  // namespace kvgrid::comm
