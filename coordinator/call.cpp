#include "coordinator/call.h"

#include <fmt/format.h>

#include "core/log.h"

namespace kvgrid::coordinator {

void Call::reply(comm::MessageType type, const google::protobuf::MessageLite& message) {
    const auto limits = comm::limits_of(static_cast<std::uint16_t>(type));
    if (limits && message.ByteSizeLong() > limits->message_bytes_max) {
        return fail({Errc::unsupported,
                     fmt::format("the answer takes {} bytes, and a {} holds {} at most: ask for less at a time",
                                 message.ByteSizeLong(), limits->name, limits->message_bytes_max)});
    }
    responder_.reply(type, message.SerializeAsString());
}

void Call::fail(const Error& error) {
    const bool defect = error == Errc::internal || error == Errc::corrupt;
    log(defect ? LogLevel::error : LogLevel::debug,
        fmt::format("{} refused: {}", comm::name_of(type_), error.to_string()));
    responder_.fail(error);
}

}  // namespace kvgrid::coordinator
