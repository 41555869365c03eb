#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "analysis/safetensors_header.h"
#include "core/result.h"

namespace kvgrid::analysis {

// A safetensors file, open for reading. Its header has passed every rule of parse_safetensors_header. Tensors are read
// when asked for, so memory is the caller's choice and a file that shrinks meanwhile is an error and not a signal.
class SafetensorsFile {
  public:
    // not_found: cannot be opened or read. corrupt, unsupported: the message names the file, the tensor and the broken
    // rule.
    static Result<SafetensorsFile> open(const std::filesystem::path& path);
    SafetensorsFile(SafetensorsFile&& other) noexcept;
    SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
    ~SafetensorsFile();

    const SafetensorsHeader& header() const { return header_; }

    // Reads a tensor of this file's header into `target`, which has its size. Elements are little-endian.
    Status read(const TensorInfo& tensor, std::span<std::byte> target) const;

    // "FILE: what", as an error about this file.
    Error error(Errc code, const std::string& what) const;

  private:
    SafetensorsFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t data_offset_ = 0;  // of the data in the file
    SafetensorsHeader header_;
};

struct TensorData {
    std::string name;
    TensorType type{};
    std::vector<std::uint64_t> shape;
    std::span<const std::byte> bytes;  // little-endian elements
};

// The bytes of a file with these tensors, in this order. The same arguments give the same bytes. invalid_argument: two
// tensors of one name, or bytes that are not shape times element size.
Result<std::vector<std::byte>> safetensors_bytes(const std::map<std::string, std::string>& metadata,
                                                 std::span<const TensorData> tensors);

}  // namespace kvgrid::analysis
