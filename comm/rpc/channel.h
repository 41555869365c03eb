#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "comm/rpc/endpoint.h"
#include "comm/rpc/io_thread.h"
#include "comm/wire/frame.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::comm {

// One connection to a server, made when first needed and made again (with back-off) after it broke. Calls may be under way in any
// number up to a bound; replies are matched by request number.
class Channel {
  public:
    using Callback = std::function<void(Result<Frame>)>;

    struct Options {
        int calls_in_flight_max = 256;                        // beyond it: busy
        std::size_t unsent_bytes_max = std::size_t{1} << 30;  // beyond it: busy
        std::chrono::milliseconds backoff_min{10};
        std::chrono::milliseconds backoff_max{1'000};
        // Short messages without a payload go through memory shared with a server of this host, where it takes it. Calls keep their order; posts
        // may overtake others, and calls.
        bool ring = false;
    };

    Channel(IoThread& io, Endpoint endpoint, Options options);
    Channel(IoThread& io, Endpoint endpoint) : Channel(io, std::move(endpoint), Options{}) {}
    ~Channel();  // calls that are under way end with `unavailable`. Not from the I/O thread unless no blocking call is under way.
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    // Sends a request and calls back on the I/O thread, exactly once: with the reply; with the Error that the server answered;
    // `unavailable` if the connection could not be made in time or broke (it is not known then whether the request was carried
    // out); `corrupt` if the server's bytes make no sense; `busy` at a bound of Options; `invalid_argument` if the frame is over its
    // type's limits; or `deadline_exceeded`.
    // Requests go out in the order of the calls; while a connection is being made they wait, up to their deadlines.
    void call(MessageType type, std::uint64_t generation, std::string message, Payload payload, Deadline deadline,
              Callback done);

    // Asked every `period` while a call waits; an Error ends the waiting, not the call.
    struct Watch {
        std::chrono::milliseconds period;
        std::function<std::optional<Error>()> verdict;
    };

    // The same, waiting; in the calling thread from end to end where that can stand in for the I/O thread. Not from the I/O thread.
    Result<Frame> call(MessageType type, std::uint64_t generation, std::string message, Payload payload,
                       Deadline deadline, const Watch& watch = {std::chrono::hours(1), nullptr});

    // Sends without wanting a reply, in order with the calls where there is no ring. `busy` if the bound on unsent bytes is reached; `unavailable` if there
    // is no connection now: one is asked for then, but nothing is kept for it. From any thread.
    Status post(MessageType type, std::uint64_t generation, std::string message, Payload payload);

    // Called on the I/O thread each time an established connection is lost (not by ~Channel).
    void on_disconnect(std::function<void()> callback);

    const Endpoint& endpoint() const;

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace kvgrid::comm
