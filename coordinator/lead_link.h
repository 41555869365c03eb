#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/rpc/channel.h"
#include "coordinator/grid.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::coordinator {

// True where the lead's answer leaves no doubt that it has done nothing. After another error it may or may not have acted.
bool surely_refused(const Error& error);

// The way to the lead of the present generation. I/O thread only; nothing blocks.
class LeadLink {
  public:
    using Done = std::function<void(Result<comm::Frame>)>;

    // `term` goes with each message that changes the grid: the lead refuses those of coordinators that came before.
    LeadLink(comm::IoThread& io, std::uint64_t term) : io_(io), term_(term) {}
    ~LeadLink() { disconnect(); }
    LeadLink(const LeadLink&) = delete;
    LeadLink& operator=(const LeadLink&) = delete;

    // From now on calls go to the lead of this grid; those under way to another one end with an error.
    Status connect(const Grid& grid);
    // The generation is over: calls end with an error until the next `connect`.
    void end_generation();
    // For good. Calls under way end without `done` being called: whoever it belongs to may be gone.
    void disconnect();

    std::uint64_t term() const { return term_; }
    Generation generation() const { return generation_; }  // 0: not connected

    // Calls back once, on the I/O thread, possibly from within this call. An answer that comes after the grid was
    // formed anew is `stale_generation`.
    void call(comm::MessageType type, std::string message, Deadline deadline, Done done);

  private:
    void retire_channel();

    comm::IoThread& io_;
    const std::uint64_t term_;
    std::shared_ptr<comm::Channel> channel_;
    Generation generation_;
    std::shared_ptr<const bool> in_use_ = std::make_shared<const bool>(true);  // gone: calls back no more
};

}  // namespace kvgrid::coordinator
