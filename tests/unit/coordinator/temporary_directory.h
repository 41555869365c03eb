#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace kvgrid::coordinator {

// An empty directory that lives as long as the object. Its path is short enough for sockets.
class TemporaryDirectory {
  public:
    TemporaryDirectory()
        : path_(std::filesystem::temp_directory_path() /
                ("kvgrid_coordinator_" + std::to_string(::getpid()) + "_" + std::to_string(next_++))) {
        std::filesystem::create_directories(path_);
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

    const std::filesystem::path& path() const { return path_; }

  private:
    static inline int next_ = 0;
    std::filesystem::path path_;
};

}  // namespace kvgrid::coordinator
