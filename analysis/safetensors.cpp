#include "analysis/safetensors.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

namespace kvgrid::analysis {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are read as they are");

constexpr std::size_t kLengthBytes = sizeof(std::uint64_t);

// Exactly the bytes asked for, or false: at the file's end, or errno.
bool read_at(int descriptor, std::uint64_t offset, std::span<std::byte> target) {
    errno = 0;
    while (!target.empty()) {
        ssize_t count = ::pread(descriptor, target.data(), target.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        target = target.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return true;
}

std::string why_not_read() {
    return errno ? fmt::format("cannot be read: {}", std::strerror(errno)) : "ends too early: has it been cut?";
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
    SafetensorsFile file(path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (file.descriptor_ < 0 || ::fstat(file.descriptor_, &status) != 0)
        return file.error(Errc::not_found, fmt::format("cannot be opened: {}", std::strerror(errno)));
    if (!S_ISREG(status.st_mode)) return file.error(Errc::not_found, "is not a regular file");

    auto file_bytes = static_cast<std::uint64_t>(status.st_size);
    std::uint64_t header_bytes = 0;
    if (file_bytes < kLengthBytes) return file.error(Errc::corrupt, "is shorter than the header's length");
    if (!read_at(file.descriptor_, 0, std::as_writable_bytes(std::span(&header_bytes, 1))))
        return file.error(Errc::corrupt, why_not_read());
    if (header_bytes > kSafetensorsHeaderBytesMax || header_bytes > file_bytes - kLengthBytes)
        return file.error(Errc::corrupt, fmt::format("header of {} bytes in a file of {}; at most {} are allowed",
                                                     header_bytes, file_bytes, kSafetensorsHeaderBytesMax));

    std::string text(header_bytes, '\0');
    if (!read_at(file.descriptor_, kLengthBytes, std::as_writable_bytes(std::span(text))))
        return file.error(Errc::corrupt, why_not_read());
    file.data_offset_ = kLengthBytes + header_bytes;
    auto header = parse_safetensors_header(text, file_bytes - file.data_offset_);
    if (!header) return file.error(header.error().code, header.error().message);
    file.header_ = std::move(*header);
    return file;
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      data_offset_(other.data_offset_),
      header_(std::move(other.header_)) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(data_offset_, other.data_offset_);
    std::swap(header_, other.header_);
    return *this;
}

SafetensorsFile::~SafetensorsFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

Status SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> target) const {
    if (target.size() != tensor.byte_count())
        return error(Errc::invalid_argument,
                     fmt::format("'{}' has {} bytes, the target {}", tensor.name, tensor.byte_count(), target.size()));
    if (!read_at(descriptor_, data_offset_ + tensor.begin, target))
        return error(Errc::corrupt, fmt::format("'{}': the file {}", tensor.name, why_not_read()));
    return {};
}

Error SafetensorsFile::error(Errc code, const std::string& what) const {
    return {code, fmt::format("{}: {}", path_.string(), what)};
}

Result<std::vector<std::byte>> safetensors_bytes(const std::map<std::string, std::string>& metadata,
                                                 std::span<const TensorData> tensors) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t offset = 0;
    for (const TensorData& tensor : tensors) {
        if (tensor.name == "__metadata__" || header.contains(tensor.name))
            return {Errc::invalid_argument, fmt::format("'{}' is a name that is taken", tensor.name)};
        if (byte_count_of(tensor.type, tensor.shape) != tensor.bytes.size())
            return {Errc::invalid_argument, fmt::format("'{}': {} bytes are not its shape times its element size",
                                                        tensor.name, tensor.bytes.size())};
        header[tensor.name] = {{"dtype", name_of(tensor.type)},
                               {"shape", tensor.shape},
                               {"data_offsets", {offset, offset + tensor.bytes.size()}}};
        offset += tensor.bytes.size();
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned in a mapped file

    std::vector<std::byte> out;
    out.reserve(kLengthBytes + text.size() + offset);
    auto append = [&out](std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); };
    std::uint64_t length = text.size();
    append(std::as_bytes(std::span(&length, 1)));
    append(std::as_bytes(std::span(text)));
    for (const TensorData& tensor : tensors) append(tensor.bytes);
    return out;
}

}  // namespace kvgrid::analysis
