#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

// One input. Called by libFuzzer, or by corpus_main for each file of a corpus. Returns 0, or -1 for an input that no corpus should keep.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace kvgrid::fuzz {

// A broken promise ends the process, which is how a fuzzer takes notice.
inline void require(bool holds, const char* promise) {
    if (holds) return;
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
}

// Takes an input apart from its front. What is beyond the end is zero.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : bytes_(reinterpret_cast<const std::byte*>(data), size) {}

    bool empty() const { return bytes_.empty(); }
    std::uint8_t byte() {
        const auto one = take(1);
        return one.empty() ? 0 : std::to_integer<std::uint8_t>(one[0]);
    }
    std::uint16_t two_bytes() {
        const std::uint16_t low = byte();
        return static_cast<std::uint16_t>(low | byte() << 8);
    }
    std::span<const std::byte> take(std::size_t count) {
        const auto taken = bytes_.first(std::min(count, bytes_.size()));
        bytes_ = bytes_.subspan(taken.size());
        return taken;
    }
    std::string_view text(std::size_t count = SIZE_MAX) {
        const auto taken = take(count);
        return {reinterpret_cast<const char*>(taken.data()), taken.size()};
    }

  private:
    std::span<const std::byte> bytes_;
};

}  // namespace kvgrid::fuzz
