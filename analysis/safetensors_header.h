#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/tensor_type.h"
#include "core/result.h"

namespace kvgrid::analysis {

// A safetensors file is
//
//   u64 little-endian header length | header: one JSON object, may be padded with spaces | data: the tensors, end to
//   end
//
// This file decides about headers only and touches no file, so that tests and fuzzers can hand it anything.
inline constexpr std::uint64_t kSafetensorsHeaderBytesMax = 100'000'000;

struct TensorInfo {
    std::string name;
    TensorType type{};
    std::vector<std::uint64_t> shape;  // empty: a scalar; a zero anywhere: no elements
    std::uint64_t begin = 0;           // bytes of the data, [begin, end)
    std::uint64_t end = 0;

    std::uint64_t byte_count() const { return end - begin; }
};

struct SafetensorsHeader {
    std::map<std::string, std::string> metadata;
    std::vector<TensorInfo> tensors;  // in the order of their data

    const TensorInfo* find(std::string_view name) const;  // nullptr: no such tensor
};

// Reads the header's text. `data_bytes` is what follows it in the file.
//
//   Accepts  an object that starts at the first byte, UTF-8, with spaces after it; "__metadata__" from string to
//   string; tensors
//            of exactly dtype, shape and data_offsets, in any order in the header.
//   Refuses  `corrupt`: anything else, a name or field said twice, an offset pair that is not shape times element size,
//   data with
//            a hole, an overlap, or a rest that belongs to no tensor. `unsupported`: an element type not in TensorType.
//   Errors   say which tensor and what is wrong with it, not the file: the caller knows that.
//   Cost     one pass without recursion, however deep the text nests.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes);

}  // namespace kvgrid::analysis
