#pragma once

#include <google/protobuf/message_lite.h>

#include <string>

#include "comm/wire/frame.h"
#include "comm/wire/kvgrid.pb.h"
#include "core/result.h"

namespace kvgrid::comm {

// A frame's message bytes out of a Protobuf message.
inline std::string pack(const google::protobuf::MessageLite& message) {
    return message.SerializeAsString();
}

// And back: `corrupt` if the bytes are no M. Whether M belongs to the frame's type is the caller's knowledge.
template <class M>
Result<M> unpack(const Frame& frame) {
    M message;
    if (!message.ParseFromString(frame.message)) {
        return {Errc::corrupt, std::string("the bytes of a ") + name_of(frame.header.type) + " frame are no " +
                                   message.GetTypeName() + " message"};
    }
    return message;
}

// Errors travel as ErrorReply. A long message is cut, bytes that are no UTF-8 become '?' (Protobuf would refuse them), and a code
// that this process does not know becomes `internal`.
wire::ErrorReply to_wire(const Error& error);
Error from_wire(const wire::ErrorReply& reply);

}  // namespace kvgrid::comm
