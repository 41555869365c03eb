#include "comm/rpc/shared_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace kvgrid::comm {

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

Error system_error(Errc code, const std::string& what) {
    return {code, what + ": " + std::strerror(errno)};
}

}  // namespace

Result<std::shared_ptr<SharedRegion>> SharedRegion::make(std::size_t bytes) {
    const int file = memfd_create("kvgrid-tensors", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0) return system_error(Errc::unsupported, "memfd_create");
    if (ftruncate(file, static_cast<off_t>(bytes)) != 0 || fcntl(file, F_ADD_SEALS, kSeals) != 0) {
        const Error error = system_error(Errc::unsupported, "shared memory of " + std::to_string(bytes) + " bytes");
        ::close(file);
        return error;
    }
    return map(file, bytes);
}

Result<std::shared_ptr<SharedRegion>> SharedRegion::open(pid_t process, int file, std::size_t bytes) {
    if (bytes == 0 || bytes > kBytesMax) {
        return {Errc::invalid_argument,
                "shared memory of " + std::to_string(bytes) + " bytes: must be from 1 to " + std::to_string(kBytesMax)};
    }
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    const int opened = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (opened < 0) return system_error(Errc::unsupported, path);
    const int seals = fcntl(opened, F_GET_SEALS);
    struct stat status {};
    const bool holds = fstat(opened, &status) == 0 && static_cast<std::size_t>(status.st_size) >= bytes;
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || !holds) {
        ::close(opened);
        return {Errc::invalid_argument,
                path + " is no memory of " + std::to_string(bytes) + " bytes that is sealed against shrinking"};
    }
    auto region = map(opened, bytes);
    if (region)
        ::close(std::exchange((*region)->file_,
                              -1));  // the mapping stays; a server has few descriptors for its many clients
    return region;
}

// Takes the file over.
Result<std::shared_ptr<SharedRegion>> SharedRegion::map(int file, std::size_t bytes) {
    void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED) {
        const Error error = system_error(Errc::unavailable, "mmap of " + std::to_string(bytes) + " shared bytes");
        ::close(file);
        return error;
    }
    return std::shared_ptr<SharedRegion>(new SharedRegion(file, {static_cast<std::byte*>(base), bytes}));
}

SharedRegion::~SharedRegion() {
    munmap(bytes_.data(), bytes_.size());
    if (file_ >= 0) ::close(file_);
}

}  // namespace kvgrid::comm
