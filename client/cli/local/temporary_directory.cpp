#include "client/cli/local/temporary_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace kvgrid::cli {

namespace {

namespace fs = std::filesystem;

constexpr const char* kParent = "/tmp";
constexpr const char* kPrefix = "kvgrid-";
constexpr const char* kLockFile = ".held";

// A descriptor that holds the lock, or -1: there is no such file, it is not ours, or someone else holds it.
int try_lock(const fs::path& file, int flags) {
    const int descriptor = open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
    if (descriptor >= 0) close(descriptor);
    return -1;
}

// The file gets its name when it is locked, so that nobody finds it unlocked before.
int make_lock(const fs::path& directory) {
    const int descriptor = try_lock(directory / "new", O_CREAT | O_EXCL);
    if (descriptor >= 0) fs::rename(directory / "new", directory / kLockFile);
    return descriptor;
}

}  // namespace

Result<TemporaryDirectory> TemporaryDirectory::make() {
    remove_abandoned_directories();
    std::string path = fmt::format("{}/{}XXXXXX", kParent, kPrefix);
    const int lock = mkdtemp(path.data()) ? make_lock(path) : -1;
    if (lock < 0)
        return {Errc::internal, fmt::format("cannot make a directory in {}: {}", kParent, std::strerror(errno))};
    return TemporaryDirectory(path, lock);
}

TemporaryDirectory::TemporaryDirectory(TemporaryDirectory&& other) noexcept
    : path_(std::exchange(other.path_, {})), lock_(other.lock_) {}

TemporaryDirectory& TemporaryDirectory::operator=(TemporaryDirectory&& other) noexcept {
    if (this == &other) return *this;
    remove();
    path_ = std::exchange(other.path_, {});
    lock_ = other.lock_;
    return *this;
}

TemporaryDirectory::~TemporaryDirectory() {
    remove();
}

void TemporaryDirectory::remove() {
    if (path_.empty()) return;
    std::error_code ignored;  // the next one that is made tries again
    fs::remove_all(path_, ignored);
    close(lock_);
    path_.clear();
}

void remove_abandoned_directories() {
    std::error_code ignored;  // others may be removing the same
    std::vector<fs::path> candidates;
    for (const auto& entry : fs::directory_iterator(kParent, ignored)) {
        if (entry.path().filename().string().starts_with(kPrefix)) candidates.push_back(entry.path());
    }
    for (const fs::path& candidate : candidates) {
        const int lock = try_lock(candidate / kLockFile, 0);
        if (lock < 0) continue;
        fs::remove_all(candidate, ignored);
        close(lock);
    }
}

}  // namespace kvgrid::cli
