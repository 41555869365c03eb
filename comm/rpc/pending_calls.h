#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "comm/wire/frame.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::comm {

// The calls of a channel that have no answer yet: by request number, and by deadline. Each leaves exactly once, through a take.
class PendingCalls {
  public:
    using Callback = std::function<void(Result<Frame>)>;
    struct Call {
        Callback done;
        enum class Sent { no, by_ring, by_socket } sent = Sent::no;  // once sent, the server may have seen it
    };

    std::uint64_t add(Deadline deadline, Callback done);  // its request number, never 0 and never used again
    void mark_sent(std::uint64_t request, Call::Sent way);
    bool contains(std::uint64_t request) const { return calls_.contains(request); }

    std::optional<Call> take(std::uint64_t request);
    std::vector<Call> take_expired(TimePoint now);
    std::vector<Call> take_sent();
    std::vector<Call> take_all();

    std::optional<Deadline> next_deadline() const;

  private:
    struct Entry {
        Call call;
        std::multimap<Deadline, std::uint64_t>::iterator deadline;
    };

    std::uint64_t next_request_ = 1;
    std::unordered_map<std::uint64_t, Entry> calls_;
    std::multimap<Deadline, std::uint64_t> deadlines_;
};

}  // namespace kvgrid::comm
