#include "client/cli/temporary_directory.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kvgrid::cli {

Result<TemporaryDirectory> TemporaryDirectory::make() {
    std::string path = "/tmp/kvgrid-XXXXXX";
    if (!mkdtemp(path.data())) {
        return {Errc::internal, fmt::format("cannot make a directory under /tmp: {}", std::strerror(errno))};
    }
    return TemporaryDirectory(path);
}

TemporaryDirectory::TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}

TemporaryDirectory& TemporaryDirectory::operator=(TemporaryDirectory&& other) noexcept {
    if (this == &other) return *this;
    remove();
    path_ = std::exchange(other.path_, {});
    return *this;
}

TemporaryDirectory::~TemporaryDirectory() {
    remove();
}

void TemporaryDirectory::remove() {
    std::error_code ignored;  // what cannot be removed is left to whoever cleans /tmp
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
    path_.clear();
}

}  // namespace kvgrid::cli
