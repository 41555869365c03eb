#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/cli/doctor/gather_host.h"
#include "client/cli/local/worker_gpus.h"

namespace kvgrid::cli {

namespace {

// A library that is loaded as long as this lives.
class Library {
  public:
    explicit Library(const char* name) : handle_(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}
    ~Library() {
        if (handle_) dlclose(handle_);
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

    bool loaded() const { return handle_ != nullptr; }
    template <class Function>
    Function* find(const char* name) const {
        return reinterpret_cast<Function*>(dlsym(handle_, name));
    }

  private:
    void* handle_;
};

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue ...": the first word with a number and dots.
std::optional<std::string> driver_version() {
    std::ifstream file("/proc/driver/nvidia/version");
    std::string line;
    if (!std::getline(file, line)) return std::nullopt;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
        if (word.find_first_not_of("0123456789.") == word.npos && word.find('.') != word.npos) return word;
    }
    return "of unknown version";
}

// Whether either does not reach the other's memory; nothing: CUDA does not say.
std::optional<bool> are_apart(const Library& cuda, const GpuPair& pair) {
    const auto get = cuda.find<int(int*, int)>("cuDeviceGet");
    const auto can_access = cuda.find<int(int*, int, int)>("cuDeviceCanAccessPeer");
    int first = 0, second = 0, there = 0, back = 0;
    if (!get || !can_access || get(&first, pair.first) != 0 || get(&second, pair.second) != 0) return std::nullopt;
    if (can_access(&there, first, second) != 0 || can_access(&back, second, first) != 0) return std::nullopt;
    return !there || !back;
}

std::optional<std::vector<GpuPair>> pairs_apart(const Library& cuda, int devices) {
    std::vector<GpuPair> apart;
    for (int first = 0; first < devices; ++first) {
        for (int second = first + 1; second < devices; ++second) {
            const auto are = are_apart(cuda, {first, second});
            if (!are) return std::nullopt;
            if (*are) apart.push_back({first, second});
        }
    }
    return apart;
}

void ask_cuda(const Library& cuda, GpuFacts& facts) {
    const auto init = cuda.find<int(unsigned)>("cuInit");
    const auto count = cuda.find<int(int*)>("cuDeviceGetCount");
    int devices = 0;
    const int error = !init || !count ? -1 : init(0);
    if (error == 0 && count(&devices) == 0) {
        facts.device_count = devices;
        facts.pairs_apart = pairs_apart(cuda, devices);
    } else {
        facts.cuda_error = fmt::format("cuInit gave error {}", error);
    }
}

std::optional<int> nccl_version() {
    const Library nccl("libnccl.so.2");
    const auto get_version = nccl.loaded() ? nccl.find<int(int*)>("ncclGetVersion") : nullptr;
    int version = 0;
    return get_version && get_version(&version) == 0 ? std::optional(version) : std::nullopt;
}

}  // namespace

GpuFacts gather_gpu() {
    GpuFacts facts;
    facts.driver = driver_version();
    facts.device_nodes = std::filesystem::exists("/dev/nvidia0");
    const Library cuda("libcuda.so.1");
    facts.libcuda = cuda.loaded();
    if (cuda.loaded()) ask_cuda(cuda, facts);
    if (facts.device_count.value_or(0) > 0) {
        if (const auto gpus = worker_gpus()) facts.worker_gpus = static_cast<int>(gpus->size());
    }
    facts.nccl = nccl_version();
    return facts;
}

}  // namespace kvgrid::cli
