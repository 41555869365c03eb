// Runs a fuzz target over the files of its corpus, without a fuzzer: so that what was once found stays found, in every build.
//
//   fuzz_corpus_TARGET FOLDER        each file, and each file cut short in three places

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace {

std::vector<std::uint8_t> bytes_of(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
    std::ranges::sort(files);
    for (const auto& file : files) {
        std::fprintf(stderr, "%s\n", file.filename().c_str());  // the last one named is the one that failed
        const std::vector<std::uint8_t> bytes = bytes_of(file);
        for (const std::size_t size : {bytes.size(), bytes.size() / 2, bytes.size() / 4, bytes.size() * 3 / 4}) {
            const std::vector<std::uint8_t> exact(bytes.begin(), bytes.begin() + size);  // so that ASan sees its end
            LLVMFuzzerTestOneInput(exact.data(), exact.size());
        }
    }
    std::printf("%zu files\n", files.size());
    return files.empty() ? 1 : 0;
}
