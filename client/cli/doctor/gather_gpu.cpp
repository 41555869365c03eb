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

void ask_cuda(const Library& cuda, GpuFacts& facts) {
    const auto init = cuda.find<int(unsigned)>("cuInit");
    const auto count = cuda.find<int(int*)>("cuDeviceGetCount");
    int devices = 0;
    const int error = !init || !count ? -1 : init(0);
    if (error == 0 && count(&devices) == 0) {
        facts.device_count = devices;
    } else {
        facts.cuda_error = fmt::format("cuInit gave error {}", error);
    }
}

// 22005 -> "2.20.5"; before 2.9 the digits were fewer.
std::string nccl_version(int number) {
    const int major = number >= 10'000 ? number / 10'000 : number / 1'000;
    const int minor = number >= 10'000 ? number / 100 % 100 : number / 100 % 10;
    return fmt::format("{}.{}.{}", major, minor, number % 100);
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
    const Library nccl("libnccl.so.2");
    if (const auto get_version = nccl.loaded() ? nccl.find<int(int*)>("ncclGetVersion") : nullptr) {
        int number = 0;
        if (get_version(&number) == 0) facts.nccl = nccl_version(number);
    }
    return facts;
}

}  // namespace kvgrid::cli
