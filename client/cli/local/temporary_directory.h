#pragma once

#include <filesystem>
#include <string>

#include "core/result.h"

namespace kvgrid::cli {

// A fresh directory of a short name under /tmp, for this user only; removed with all that is in it.
//
//   Short      it holds Unix-domain sockets, whose paths may have 107 bytes.
//   Abandoned  a process that is killed leaves its directory behind. Making a new one removes those of dead processes: the living hold
//              a lock on a file of theirs, and the kernel drops it when they end.
class TemporaryDirectory {
  public:
    static Result<TemporaryDirectory> make();
    TemporaryDirectory(TemporaryDirectory&& other) noexcept;
    TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept;
    ~TemporaryDirectory();

    const std::filesystem::path& path() const { return path_; }

  private:
    TemporaryDirectory(std::filesystem::path path, int lock) : path_(std::move(path)), lock_(lock) {}
    void remove();

    std::filesystem::path path_;  // empty: moved from
    int lock_;
};

// Removes directories that a TemporaryDirectory of this user made and that no living process holds.
void remove_abandoned_directories();

}  // namespace kvgrid::cli
