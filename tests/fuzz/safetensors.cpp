// A file as a safetensors file and as a trace. One that is taken has tensors that lie one behind the other and make up its data, and
// all of them can be read.
//
//   input  the file

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "analysis/safetensors.h"
#include "analysis/trace.h"
#include "tests/fuzz/fuzz_target.h"

namespace kvgrid::analysis {
namespace {

using fuzz::require;

void read_tensors(const SafetensorsFile& file, std::size_t file_bytes) {
    std::uint64_t end = 0;
    for (const TensorInfo& tensor : file.header().tensors) {
        require(tensor.begin == end && tensor.end >= tensor.begin && tensor.end <= file_bytes,
                "tensors lie one behind the other, in the file");
        require(byte_count_of(tensor.type, tensor.shape) == tensor.byte_count(), "a tensor has the bytes of its shape");
        require(file.header().find(tensor.name) == &tensor, "a tensor is found by its name");
        end = tensor.end;
        std::vector<std::byte> bytes(tensor.byte_count());
        require(file.read(tensor, bytes).ok(), "a tensor of the file can be read");
    }
}

void read_file(const std::filesystem::path& path, std::size_t file_bytes) {
    const auto file = SafetensorsFile::open(path);
    if (file) read_tensors(*file, file_bytes);
    const auto trace = read_trace(path);
    require(file || !trace, "a trace is a safetensors file");
    if (!trace) return;
    require(validated(trace->spec).ok(), "the spec of a trace is valid");
    require(static_cast<int>(trace->tokens.size()) == trace->token_count(), "a trace has all of its tokens");
}

}  // namespace
}  // namespace kvgrid::analysis

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
    kvgrid::fuzz::require(fd >= 0 && ::write(fd, data, size) == static_cast<ssize_t>(size), "a file can be made");
    kvgrid::analysis::read_file("/proc/self/fd/" + std::to_string(fd), size);
    ::close(fd);
    return 0;
}
