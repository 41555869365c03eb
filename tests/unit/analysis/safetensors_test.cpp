// A file is opened if its header and its length agree, and says which file and what is wrong if not. What the writer
// writes, the reader reads.

#include "analysis/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/unit/analysis/temporary_file.h"

namespace kvgrid::analysis {
namespace {

std::vector<std::byte> file_of(std::uint64_t header_bytes, const std::string& rest) {
    std::vector<std::byte> bytes(sizeof header_bytes + rest.size());
    std::memcpy(bytes.data(), &header_bytes, sizeof header_bytes);
    std::memcpy(bytes.data() + sizeof header_bytes, rest.data(), rest.size());
    return bytes;
}

std::vector<std::byte> small_file() {
    static const float values[] = {1.5f, -2.f};
    static const std::uint8_t flags[] = {7, 8, 9};
    std::vector<TensorData> tensors{{"values", TensorType::f32, {2, 1}, std::as_bytes(std::span(values))},
                                    {"flags", TensorType::u8, {3}, std::as_bytes(std::span(flags))},
                                    {"none", TensorType::i64, {0, 5}, {}}};
    return safetensors_bytes({{"who", "test"}}, tensors).value();
}

TEST(Safetensors, ReadsWhatItWrote) {
    TemporaryFile on_disk(small_file());
    auto file = SafetensorsFile::open(on_disk.path());
    ASSERT_TRUE(file) << file.error().to_string();

    EXPECT_EQ(file->header().metadata.at("who"), "test");
    std::vector<float> values(2);
    ASSERT_TRUE(file->read(*file->header().find("values"), std::as_writable_bytes(std::span(values))));
    EXPECT_EQ(values, (std::vector<float>{1.5f, -2.f}));
    std::vector<std::byte> flags(3);
    ASSERT_TRUE(file->read(*file->header().find("flags"), flags));
    EXPECT_EQ(flags[2], std::byte{9});
    EXPECT_TRUE(file->read(*file->header().find("none"), {}));
}

TEST(Safetensors, StaysReadableWhenMoved) {
    TemporaryFile on_disk(small_file());
    SafetensorsFile first = SafetensorsFile::open(on_disk.path()).value();
    SafetensorsFile second = std::move(first);
    std::vector<std::byte> flags(3);

    EXPECT_TRUE(second.read(*second.header().find("flags"), flags));
}

TEST(Safetensors, RefusesATargetOfAnotherSize) {
    TemporaryFile on_disk(small_file());
    SafetensorsFile file = SafetensorsFile::open(on_disk.path()).value();
    std::vector<std::byte> target(4);

    EXPECT_EQ(file.read(*file.header().find("flags"), target).error(), Errc::invalid_argument);
}

TEST(Safetensors, RefusesAFileThatIsNotThere) {
    auto file = SafetensorsFile::open("/no/such/file.safetensors");

    ASSERT_EQ(file.error(), Errc::not_found);
    EXPECT_NE(file.error().message.find("/no/such/file.safetensors"), std::string::npos);
    EXPECT_EQ(SafetensorsFile::open("/tmp").error(), Errc::not_found);  // a folder
}

TEST(Safetensors, RefusesHeaderLengthsThatDoNotFit) {
    for (const auto& bytes : {std::vector<std::byte>{}, std::vector<std::byte>(7), file_of(3, "{}"),
                              file_of(~0ull, "{}"), file_of(kSafetensorsHeaderBytesMax + 1, "{}"), file_of(0, "{}")}) {
        TemporaryFile on_disk(bytes);
        auto file = SafetensorsFile::open(on_disk.path());

        ASSERT_EQ(file.error(), Errc::corrupt);
        EXPECT_EQ(file.error().message.find(on_disk.path().string()), 0u) << file.error().message;
    }
}

TEST(Safetensors, RefusesAHeaderOverTheLimitInAFileThatHoldsIt) {
    TemporaryFile on_disk(file_of(kSafetensorsHeaderBytesMax + 1, "{}"));
    std::filesystem::resize_file(on_disk.path(), kSafetensorsHeaderBytesMax + 100);  // sparse

    EXPECT_EQ(SafetensorsFile::open(on_disk.path()).error(), Errc::corrupt);
}

TEST(Safetensors, RefusesEveryCutAndAnythingAppended) {
    const std::vector<std::byte> good = small_file();
    for (std::size_t length = 0; length < good.size(); ++length) {
        TemporaryFile cut(std::span<const std::byte>(good).first(length));
        EXPECT_EQ(SafetensorsFile::open(cut.path()).error(), Errc::corrupt) << length;
    }
    std::vector<std::byte> longer = good;
    longer.push_back(std::byte{0});
    TemporaryFile appended(longer);
    EXPECT_EQ(SafetensorsFile::open(appended.path()).error(), Errc::corrupt);
}

TEST(Safetensors, AFileThatShrinksWhileOpenIsAnError) {
    TemporaryFile on_disk(small_file());
    SafetensorsFile file = SafetensorsFile::open(on_disk.path()).value();
    std::filesystem::resize_file(on_disk.path(), 20);
    std::vector<std::byte> flags(3);

    EXPECT_EQ(file.read(*file.header().find("flags"), flags).error(), Errc::corrupt);
}

TEST(Safetensors, TheWriterRefusesWhatTheReaderWould) {
    const std::byte bytes[4]{};
    TensorData good{"a", TensorType::f32, {1}, bytes};
    TensorData short_one{"a", TensorType::f32, {2}, bytes};
    TensorData reserved{"__metadata__", TensorType::f32, {1}, bytes};

    EXPECT_EQ(safetensors_bytes({}, std::vector{good, good}).error(), Errc::invalid_argument);
    EXPECT_EQ(safetensors_bytes({}, std::vector{short_one}).error(), Errc::invalid_argument);
    EXPECT_EQ(safetensors_bytes({}, std::vector{reserved}).error(), Errc::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::analysis
