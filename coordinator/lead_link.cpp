#include "coordinator/lead_link.h"

#include <fmt/format.h>

namespace kvgrid::coordinator {

bool surely_refused(const Error& error) {
    switch (error.code) {
        case Errc::invalid_argument:
        case Errc::not_found:
        case Errc::already_exists:
        case Errc::no_room:
        case Errc::busy:
        case Errc::wrong_state:
        case Errc::stale_generation:
        case Errc::unsupported:
            return true;
        case Errc::deadline_exceeded:
        case Errc::unavailable:
        case Errc::peer_lost:
        case Errc::corrupt:
        case Errc::internal:
            return false;
    }
    return false;
}

Status LeadLink::connect(const Grid& grid) {
    auto endpoint = comm::parse_endpoint(grid.members.front().process.endpoint);
    if (!endpoint) return endpoint.error();
    retire_channel();
    channel_ = std::make_shared<comm::Channel>(io_, *endpoint);
    generation_ = grid.generation;
    return {};
}

void LeadLink::end_generation() {
    generation_ = {};
    retire_channel();
}

void LeadLink::disconnect() {
    in_use_.reset();
    end_generation();
}

// A channel that dies calls back; that has to happen outside of whatever runs now.
void LeadLink::retire_channel() {
    if (!channel_) return;
    io_.post([retired = std::move(channel_)]() mutable { retired.reset(); });
    channel_.reset();
}

void LeadLink::call(comm::MessageType type, std::string message, Deadline deadline, Done done) {
    auto answered = [this, in_use = std::weak_ptr<const bool>(in_use_), generation = generation_,
                     done](Result<comm::Frame> answer) {
        if (in_use.expired()) return;
        if (generation == generation_) return done(std::move(answer));
        done(Error{Errc::stale_generation,
                   fmt::format("generation {} ended before its lead had answered: retry", generation.value)});
    };
    if (!channel_) {
        io_.post([answered] { answered(Error{Errc::unavailable, "the grid has no lead yet: retry"}); });
        return;
    }
    channel_->call(type, generation_.value, std::move(message), {}, deadline, std::move(answered));
}

}  // namespace kvgrid::coordinator
