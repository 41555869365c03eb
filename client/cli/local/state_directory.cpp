#include "client/cli/local/state_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

namespace kvgrid::cli {

namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "kvgrid-local-cluster";
constexpr const char* kLayout = "kvgrid local cluster, layout 1\n";
constexpr const char* kLock = "lock";
constexpr const char* kRecord = "cluster.json";
constexpr const char* kFormat = "kvgrid.local_cluster";
constexpr int kFormatVersion = 1;

std::string text_of(const fs::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

Error foreign(const fs::path& directory, const std::string& why) {
    return {Errc::invalid_argument,
            fmt::format("{} {}: name another directory with --state-dir, or remove it", directory.string(), why)};
}

struct flock whole_file(short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    return lock;
}

bool is_held(const fs::path& directory) {
    const int descriptor = open((directory / kLock).c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return false;
    struct flock lock = whole_file(F_WRLCK);
    const bool held = fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(descriptor);
    return held;
}

std::optional<LocalClusterRecord> record_in(const fs::path& directory) {
    auto record = parse_local_cluster_record(text_of(directory / kRecord));
    return record ? std::optional(*std::move(record)) : std::nullopt;
}

}  // namespace

std::string to_json(const LocalClusterRecord& record) {
    return nlohmann::json{{"format", kFormat},
                          {"format_version", kFormatVersion},
                          {"keeper", record.keeper},
                          {"ready", record.ready},
                          {"endpoint", record.endpoint},
                          {"listen", record.listen},
                          {"mark", record.mark},
                          {"workers", record.workers},
                          {"memory_bytes_per_worker", record.memory_bytes_per_worker},
                          {"started_at", record.started_at},
                          {"version", record.version}}
        .dump(2);
}

Result<LocalClusterRecord> parse_local_cluster_record(const std::string& json) {
    const auto parsed = nlohmann::json::parse(json, nullptr, false);
    const bool ours = parsed.is_object() && parsed.contains("format") && parsed["format"] == kFormat &&
                      parsed.contains("format_version") && parsed["format_version"] == kFormatVersion;
    if (!ours) return {Errc::corrupt, fmt::format("not a {} of version {}", kFormat, kFormatVersion)};
    try {
        return LocalClusterRecord{.keeper = parsed.at("keeper"),
                                  .ready = parsed.at("ready"),
                                  .endpoint = parsed.at("endpoint"),
                                  .listen = parsed.at("listen"),
                                  .mark = parsed.at("mark"),
                                  .workers = parsed.at("workers"),
                                  .memory_bytes_per_worker = parsed.at("memory_bytes_per_worker"),
                                  .started_at = parsed.at("started_at"),
                                  .version = parsed.at("version")};
    } catch (const nlohmann::json::exception& wrong) {
        return {Errc::corrupt, wrong.what()};
    }
}

fs::path local_state_dir(const std::string& named, const std::string& name) {
    if (!named.empty()) return fs::absolute(named);
    if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state) return fs::path(state) / "kvgrid" / name;
    const char* home = std::getenv("HOME");
    return fs::path(home && *home ? home : "/tmp") / ".local/state/kvgrid" / name;
}

Status prepare_state_dir(const fs::path& directory) {
    std::error_code error;
    fs::create_directories(directory, error);
    struct stat info {};
    if (error || stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
        return foreign(directory, fmt::format("cannot be a directory ({})", error ? error.message() : "it is a file"));
    if (info.st_uid != geteuid()) return foreign(directory, "belongs to another user");
    const std::string layout = text_of(directory / kMarker);
    if (layout == kLayout) return {};
    if (!layout.empty()) return foreign(directory, "was made by another version of kvgrid");
    if (!fs::is_empty(directory, error)) return foreign(directory, "is not empty and not kvgrid's");
    fs::permissions(directory, fs::perms::owner_all, error);
    std::ofstream(directory / kMarker) << kLayout;
    if (text_of(directory / kMarker) == kLayout) return {};
    return foreign(directory, "cannot be written to");
}

bool is_state_dir(const fs::path& directory) {
    return text_of(directory / kMarker) == kLayout;
}

std::optional<LocalClusterRecord> running_local_cluster(const fs::path& directory) {
    return is_held(directory) ? record_in(directory) : std::nullopt;
}

std::optional<LocalClusterRecord> abandoned_local_cluster(const fs::path& directory) {
    return is_held(directory) ? std::nullopt : record_in(directory);
}

Result<StateLock> StateLock::take(const fs::path& directory) {
    const fs::path file = directory / kLock;
    const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0) return {Errc::internal, fmt::format("cannot open {}: {}", file.string(), std::strerror(errno))};
    struct flock lock = whole_file(F_WRLCK);
    if (fcntl(descriptor, F_OFD_SETLK, &lock) == 0) return StateLock(directory, descriptor);
    close(descriptor);
    return {Errc::busy, fmt::format("a cluster runs already with its state in {}", directory.string())};
}

StateLock::StateLock(StateLock&& other) noexcept
    : directory_(std::move(other.directory_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

StateLock::~StateLock() {
    if (descriptor_ >= 0) close(descriptor_);
}

Status StateLock::write(const LocalClusterRecord& record) {
    const fs::path fresh = directory_ / "cluster.json.new";
    std::ofstream stream(fresh, std::ios::trunc);
    stream << to_json(record) << "\n";
    stream.close();
    std::error_code error;
    if (stream) fs::rename(fresh, directory_ / kRecord, error);
    if (stream && !error) return {};
    return {Errc::internal, fmt::format("cannot write {}: is the disk full?", (directory_ / kRecord).string())};
}

void StateLock::erase() {
    std::error_code ignored;  // it may not be there yet
    fs::remove(directory_ / kRecord, ignored);
}

}  // namespace kvgrid::cli
