#include "comm/wire/messages.h"

#include <algorithm>
#include <string_view>

namespace kvgrid::comm {
namespace {

constexpr std::size_t kErrorTextBytesMax = 16 << 10;  // far below the limit of an `error` frame's message

// Bytes of the UTF-8 character that `text` starts with, 0 if it starts with none. Looser than Unicode about surrogates and
// over-long forms: those are caught by their first bytes' bounds below.
std::size_t character_bytes(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t count = first >= 0xC2 && first < 0xE0 ? 2 : first >= 0xE0 && first < 0xF0 ? 3 : 4;
    if (first < 0xC2 || first > 0xF4 || text.size() < count) return 0;
    for (std::size_t i = 1; i < count; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return 0;
    }
    const unsigned second = byte(1);
    const bool over_long = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    const bool out_of_range = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
    return over_long || out_of_range ? 0 : count;
}

std::string as_utf8(std::string_view text) {
    std::string clean;
    clean.reserve(text.size());
    while (!text.empty()) {
        const std::size_t count = character_bytes(text);
        clean += count == 0 ? std::string_view("?") : text.substr(0, count);
        text.remove_prefix(std::max<std::size_t>(count, 1));
    }
    return clean;
}

}  // namespace

wire::ErrorReply to_wire(const Error& error) {
    wire::ErrorReply reply;
    reply.set_code(static_cast<std::uint32_t>(error.code));
    reply.set_message(as_utf8(std::string_view(error.message).substr(0, kErrorTextBytesMax)));
    return reply;
}

Error from_wire(const wire::ErrorReply& reply) {
    constexpr auto first = static_cast<std::uint32_t>(Errc::invalid_argument);
    constexpr auto last = static_cast<std::uint32_t>(Errc::internal);
    if (reply.code() >= first && reply.code() <= last) {
        return {static_cast<Errc>(reply.code()), reply.message()};
    }
    return {Errc::internal, "error code " + std::to_string(reply.code()) + ", unknown here: " + reply.message()};
}

}  // namespace kvgrid::comm
