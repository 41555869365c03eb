#pragma once

#include <filesystem>
#include <string>

#include "core/result.h"

namespace kvgrid::cli {

// A fresh directory of a short name under /tmp, for this user only; removed with all that is in it.
//
//   Short  it holds Unix-domain sockets, whose paths may have 107 bytes.
class TemporaryDirectory {
  public:
    static Result<TemporaryDirectory> make();
    TemporaryDirectory(TemporaryDirectory&& other) noexcept;
    TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept;
    ~TemporaryDirectory();

    const std::filesystem::path& path() const { return path_; }

  private:
    explicit TemporaryDirectory(std::filesystem::path path) : path_(std::move(path)) {}
    void remove();

    std::filesystem::path path_;  // empty: moved from
};

}  // namespace kvgrid::cli
