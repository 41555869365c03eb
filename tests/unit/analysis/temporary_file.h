#pragma once

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>

namespace kvgrid::analysis {

// A file with these bytes that lives as long as the object.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::span<const std::byte> bytes)
        : path_(std::filesystem::temp_directory_path() /
                ("kvgrid_test_" + std::to_string(::getpid()) + "_" + std::to_string(next_++))) {
        std::ofstream(path_, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    ~TemporaryFile() { std::filesystem::remove(path_); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    const std::filesystem::path& path() const { return path_; }

  private:
    static inline int next_ = 0;
    std::filesystem::path path_;
};

}  // namespace kvgrid::analysis
