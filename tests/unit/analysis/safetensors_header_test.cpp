// A header is accepted if every byte of the data belongs to exactly one tensor whose shape and type say so, and
// refused, with the tensor and the rule, for everything else. Each rule has a header that breaks it alone.

#include "analysis/safetensors_header.h"

#include <gtest/gtest.h>

namespace kvgrid::analysis {
namespace {

// One tensor 'a' with these fields and no more.
std::string header_of(const std::string& fields) {
    return R"({"a":{)" + fields + "}}";
}

// Two F32 tensors of two elements each, with the second's offsets as given; 16 bytes of data are right.
std::string two_tensors(const std::string& offsets_of_b) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":)" +
           offsets_of_b + "}}";
}

TEST(SafetensorsHeader, ReadsTensorsAndMetadata) {
    auto header = parse_safetensors_header(
        R"({"__metadata__":{"format":"pt","":""},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}   )", 12);

    ASSERT_TRUE(header) << header.error().to_string();
    EXPECT_EQ(header->metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"", ""}}));
    ASSERT_EQ(header->tensors.size(), 1u);
    EXPECT_EQ(header->find("a")->type, TensorType::bf16);
    EXPECT_EQ(header->find("a")->shape, (std::vector<std::uint64_t>{2, 3}));
    EXPECT_EQ(header->find("a")->byte_count(), 12u);
    EXPECT_EQ(header->find("b"), nullptr);
}

TEST(SafetensorsHeader, ReadsAScalarAnEmptyTensorAndNoTensors) {
    auto scalar = parse_safetensors_header(header_of(R"("dtype":"F64","shape":[],"data_offsets":[0,8])"), 8);
    ASSERT_TRUE(scalar) << scalar.error().to_string();
    EXPECT_TRUE(scalar->find("a")->shape.empty());

    EXPECT_TRUE(parse_safetensors_header(header_of(R"("dtype":"F64","shape":[7,0],"data_offsets":[0,0])"), 0));
    EXPECT_TRUE(parse_safetensors_header("{}", 0));
}

TEST(SafetensorsHeader, OrdersTensorsByTheirDataWhateverTheHeadersOrder) {
    auto header = parse_safetensors_header(
        R"({"late":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"early":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},)"
        R"("none":{"dtype":"I32","shape":[0],"data_offsets":[4,4]}})",
        5);

    ASSERT_TRUE(header) << header.error().to_string();
    EXPECT_EQ(header->tensors[0].name, "early");
    EXPECT_EQ(header->tensors[1].name, "none");
    EXPECT_EQ(header->tensors[2].name, "late");
}

TEST(SafetensorsHeader, ReadsEveryElementTypeThatItNames) {
    for (const char* name : {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F8_E4M3", "F8_E5M2", "F16",
                             "BF16", "F32", "F64"}) {
        auto type = parse_tensor_type(name);
        ASSERT_TRUE(type) << name;
        EXPECT_STREQ(name_of(*type), name);
        std::string size = std::to_string(byte_size(*type));
        std::string text =
            header_of(std::string(R"("dtype":")") + name + R"(","shape":[1],"data_offsets":[0,)" + size + "]");
        EXPECT_TRUE(parse_safetensors_header(text, byte_size(*type))) << name;
    }
}

TEST(SafetensorsHeader, RefusesAnUnknownElementTypeByName) {
    auto header = parse_safetensors_header(header_of(R"("dtype":"F4","shape":[2],"data_offsets":[0,1])"), 1);

    ASSERT_EQ(header.error(), Errc::unsupported);
    EXPECT_NE(header.error().message.find("'a': element type 'F4'"), std::string::npos) << header.error().message;
}

struct BadHeader {
    std::string why;  // part of the message
    std::string text;
    std::uint64_t data_bytes = 8;
};

class SafetensorsHeaderRefuses : public testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsHeaderRefuses, AsCorrupt) {
    auto header = parse_safetensors_header(GetParam().text, GetParam().data_bytes);

    ASSERT_FALSE(header) << GetParam().text;
    EXPECT_EQ(header.error(), Errc::corrupt);
    EXPECT_NE(header.error().message.find(GetParam().why), std::string::npos) << header.error().message;
}

INSTANTIATE_TEST_SUITE_P(Text, SafetensorsHeaderRefuses,
                         testing::Values(BadHeader{"start with '{'", ""}, BadHeader{"start with '{'", " {}"},
                                         BadHeader{"start with '{'", "[]"}, BadHeader{"end with '}'", "{"},
                                         BadHeader{"end with '}'", "{}\n"}, BadHeader{"end with '}'", "{} x"},
                                         BadHeader{"end with '}'", std::string("{}\0", 3)},
                                         BadHeader{"not JSON", "{}{}"}, BadHeader{"not JSON", "{\"a\":}"},
                                         BadHeader{"not JSON", "{'a':1}"}, BadHeader{"not JSON", "{\"\xff\":1}"},
                                         BadHeader{"not JSON", "{/* x */}"}));

INSTANTIATE_TEST_SUITE_P(
    Shape, SafetensorsHeaderRefuses,
    testing::Values(BadHeader{"'a': a number stands", R"({"a":1})"}, BadHeader{"'a': null stands", R"({"a":null})"},
                    BadHeader{"'a': an array stands", R"({"a":[]})"}, BadHeader{"'a': a string stands", R"({"a":"x"})"},
                    BadHeader{"dtype, shape and data_offsets", R"({"a":{}})"},
                    BadHeader{"dtype, shape and data_offsets", header_of(R"("shape":[2],"data_offsets":[0,8])")},
                    BadHeader{"dtype, shape and data_offsets", header_of(R"("dtype":"F32","data_offsets":[0,8])")},
                    BadHeader{"dtype, shape and data_offsets", header_of(R"("dtype":"F32","shape":[2])")},
                    BadHeader{"unknown field 'extra'",
                              header_of(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1)")},
                    BadHeader{"a number stands", header_of(R"("dtype":11,"shape":[2],"data_offsets":[0,8])")},
                    BadHeader{"a number stands", header_of(R"("dtype":"F32","shape":2,"data_offsets":[0,8])")},
                    BadHeader{"an array stands", header_of(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])")},
                    BadHeader{"a string stands", header_of(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])")},
                    BadHeader{"an object stands", header_of(R"("dtype":{},"shape":[2],"data_offsets":[0,8])")},
                    BadHeader{"negative", header_of(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])")},
                    BadHeader{"no 64-bit integer", header_of(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])")},
                    BadHeader{"no 64-bit integer",
                              header_of(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8])")},
                    BadHeader{"true or false", header_of(R"("dtype":"F32","shape":[true],"data_offsets":[0,8])")}));

INSTANTIATE_TEST_SUITE_P(Metadata, SafetensorsHeaderRefuses,
                         testing::Values(BadHeader{"'__metadata__': a string", R"({"__metadata__":"x"})", 0},
                                         BadHeader{"'k': a number", R"({"__metadata__":{"k":1}})", 0},
                                         BadHeader{"'k': an object", R"({"__metadata__":{"k":{}}})", 0},
                                         BadHeader{"'k': null", R"({"__metadata__":{"k":null}})", 0}));

INSTANTIATE_TEST_SUITE_P(
    SaidTwice, SafetensorsHeaderRefuses,
    testing::Values(BadHeader{"'k': the key stands in __metadata__ twice", R"({"__metadata__":{"k":"1","k":"1"}})", 0},
                    BadHeader{"'__metadata__': the name", R"({"__metadata__":{},"__metadata__":{}})", 0},
                    BadHeader{"'a': the name",
                              R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                              R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                              0},
                    BadHeader{"'a': the name",
                              R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                              R"("\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                              0},
                    BadHeader{"a field", header_of(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])")},
                    BadHeader{"a field", header_of(R"("dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8])")}));

INSTANTIATE_TEST_SUITE_P(
    Offsets, SafetensorsHeaderRefuses,
    testing::Values(
        BadHeader{"two numbers", header_of(R"("dtype":"F32","shape":[2],"data_offsets":[8])")},
        BadHeader{"two numbers", header_of(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])")},
        BadHeader{"two numbers", header_of(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])")},
        BadHeader{"need 12 bytes, data_offsets hold 8", header_of(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])")},
        BadHeader{"'a': its data begins at 1", header_of(R"("dtype":"U8","shape":[7],"data_offsets":[1,8])")},
        BadHeader{"end at byte 8 of the data, the file at 9",
                  header_of(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), 9},
        BadHeader{"end at byte 8 of the data, the file at 7",
                  header_of(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), 7},
        BadHeader{"end at byte 0 of the data, the file at 1", "{}", 1},
        BadHeader{"'b': its data begins at 9", two_tensors("[9,17]"), 17},  // a hole
        BadHeader{"'b': its data begins at 4", two_tensors("[4,12]"), 12},  // an overlap
        BadHeader{"'b': its data begins at 0", two_tensors("[0,8]"), 8}));  // the same bytes twice

INSTANTIATE_TEST_SUITE_P(
    Overflow, SafetensorsHeaderRefuses,
    testing::Values(BadHeader{"does not fit 64 bits",
                              header_of(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), 0},
                    BadHeader{"does not fit 64 bits",
                              header_of(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0},
                    BadHeader{"does not fit 64 bits",
                              header_of(R"("dtype":"U8","shape":[18446744073709551615,2,0],"data_offsets":[0,0])"),
                              0}));

TEST(SafetensorsHeader, RefusesDeepNestingWithoutRecursion) {
    std::string deep = R"({"a":{"dtype":"F32","shape":)" + std::string(1'000'000, '[') + "}";

    EXPECT_EQ(parse_safetensors_header(deep, 0).error(), Errc::corrupt);
}

TEST(SafetensorsHeader, EveryPrefixAndEveryChangedByteIsReadOrRefused) {
    const std::string good = two_tensors("[8,16]");
    for (std::size_t length = 0; length < good.size(); ++length)
        EXPECT_FALSE(parse_safetensors_header(good.substr(0, length), 16)) << length;
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (int byte = 0; byte < 256; ++byte) {
            std::string changed = good;
            changed[at] = static_cast<char>(byte);
            auto header = parse_safetensors_header(changed, 16);  // must not crash; a changed name is a good header
            EXPECT_TRUE(!header || header->tensors.back().end == 16) << changed;
        }
    }
}

TEST(SafetensorsHeader, MessagesClipAndCleanNames) {
    auto header = parse_safetensors_header(R"({"\n)" + std::string(1000, 'x') + R"(":1})", 0);

    EXPECT_LT(header.error().message.size(), 200u);
    EXPECT_EQ(header.error().message.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace kvgrid::analysis
