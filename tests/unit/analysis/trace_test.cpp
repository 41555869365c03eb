// A trace is read if its metadata and tensors are exactly what the format says, and refused, naming the key or the
// tensor, where one thing differs. The trace of a real model that lies beside the tests is read as it is.

#include "analysis/trace.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "analysis/safetensors.h"
#include "tests/unit/analysis/temporary_file.h"

namespace kvgrid::analysis {
namespace {

// A good trace of 3 + 2 tokens and layers 0 and 4 whose parts a test changes before it is written.
struct TraceParts {
    struct Tensor {
        TensorType type = TensorType::f32;
        std::vector<std::uint64_t> shape;
        std::vector<std::byte> bytes;
    };

    std::map<std::string, std::string> metadata{
        {"kvgrid.trace", "1"}, {"model", "tiny"},       {"license", "CC0"},     {"query_heads", "4"},
        {"kv_heads", "2"},     {"head_dim", "32"},      {"scale", "0.25"},      {"dtype", "f32"},
        {"layers", "0,4"},     {"prefill_tokens", "3"}, {"decode_tokens", "2"}, {"text", "any"},
    };
    std::map<std::string, Tensor> tensors;

    TraceParts() {
        add("tokens", TensorType::i32, {5});
        for (const char* layer : {"layer.0.", "layer.4."}) {
            for (char letter : {'q', 'o'}) add(std::string(layer) + letter, TensorType::f32, {5, 4, 32});
            for (char letter : {'k', 'v'}) add(std::string(layer) + letter, TensorType::f32, {5, 2, 32});
        }
    }

    void add(const std::string& name, TensorType type, std::vector<std::uint64_t> shape) {
        std::vector<std::byte> zeros(byte_count_of(type, shape).value());
        tensors[name] = {type, std::move(shape), std::move(zeros)};
    }

    void set(const std::string& name, std::size_t element, float value) {
        store_element(tensors.at(name).bytes.data(), element, Dtype::f32, value);
    }

    Result<Trace> read() const {
        std::vector<TensorData> data;
        for (const auto& [name, tensor] : tensors) data.push_back({name, tensor.type, tensor.shape, tensor.bytes});
        TemporaryFile file(safetensors_bytes(metadata, data).value());
        return read_trace(file.path());
    }
};

void expect_corrupt(const TraceParts& parts, const std::string& why) {
    auto trace = parts.read();
    ASSERT_FALSE(trace) << why;
    EXPECT_EQ(trace.error(), Errc::corrupt);
    EXPECT_NE(trace.error().message.find(why), std::string::npos) << trace.error().message;
}

TEST(Trace, ReadsGeometryTokensAndTensors) {
    TraceParts parts;
    parts.set("layer.4.k", 2 * 32 + 1, -1.5f);  // token 1, head 0, element 1
    auto trace = parts.read();

    ASSERT_TRUE(trace) << trace.error().to_string();
    EXPECT_EQ(trace->spec.name, "tiny.trace");
    EXPECT_EQ(trace->spec.layer_count(), 2);
    EXPECT_TRUE(trace->spec.owns_kv(1));
    EXPECT_EQ(trace->spec.query_heads, 4);
    EXPECT_EQ(trace->spec.kv_heads, 2);
    EXPECT_EQ(trace->spec.scale, 0.25);
    EXPECT_EQ(trace->token_count(), 5);
    EXPECT_EQ(trace->tokens.size(), 5u);
    EXPECT_EQ(trace->license, "CC0");
    EXPECT_EQ(trace->layers[1].model_layer, 4);
    EXPECT_EQ(trace->layers[1].q.size(), 5 * trace->query_row());
    EXPECT_EQ(trace->layers[1].k.size(), 5 * trace->kv_row());
    EXPECT_EQ(trace->layers[1].k[trace->kv_row() + 1], -1.5f);
}

TEST(Trace, RefusesMissingMetadataByKey) {
    for (const auto& [key, value] : TraceParts().metadata) {
        if (key == "text") continue;
        TraceParts parts;
        parts.metadata.erase(key);
        expect_corrupt(parts, key);
    }
}

TEST(Trace, RefusesMetadataThatIsNoNumberOrOutOfRange) {
    for (const char* key : {"query_heads", "kv_heads", "head_dim", "prefill_tokens", "decode_tokens"}) {
        for (const char* value : {"", "x", "4x", " 4", "-1", "4.0", "99999999999999999999", "2147483647"}) {
            TraceParts parts;
            parts.metadata[key] = value;
            expect_corrupt(parts, key);
        }
    }
    for (const char* value : {"", "x", "0.25 ", "0", "-1", "nan", "inf"}) {
        TraceParts parts;
        parts.metadata["scale"] = value;
        expect_corrupt(parts, "scale");
    }
    for (const char* value : {"", "0,", ",0", "0,,4", "4,0", "0,0", "-1,4", "0;4"}) {
        TraceParts parts;
        parts.metadata["layers"] = value;
        expect_corrupt(parts, "layers");
    }
}

TEST(Trace, RefusesAGeometryThatNoModelSpecMayHave) {
    TraceParts parts;
    parts.metadata["kv_heads"] = "3";  // does not divide 4 query heads
    expect_corrupt(parts, "geometry");
}

TEST(Trace, RefusesAnotherVersionAndAnotherDtypeAsUnsupported) {
    for (auto [key, value] : {std::pair{"kvgrid.trace", "2"}, {"dtype", "f16"}}) {
        TraceParts parts;
        parts.metadata[key] = value;
        EXPECT_EQ(parts.read().error(), Errc::unsupported) << key;
    }
}

TEST(Trace, RefusesEachMissingTensorByName) {
    for (const auto& [name, tensor] : TraceParts().tensors) {
        TraceParts parts;
        parts.tensors.erase(name);
        expect_corrupt(parts, "'" + name + "'");
    }
}

TEST(Trace, RefusesEachTensorOfAnotherShapeOrTypeByName) {
    for (const auto& [name, tensor] : TraceParts().tensors) {
        std::vector<std::uint64_t> longer = tensor.shape;
        longer[0] += 1;
        std::vector<std::uint64_t> other_rank = tensor.shape;
        other_rank.push_back(1);
        for (const auto& shape : {longer, other_rank}) {
            TraceParts parts;
            parts.add(name, tensor.type, shape);
            expect_corrupt(parts, "'" + name + "'");
        }
        TraceParts parts;
        parts.add(name, TensorType::u32, tensor.shape);
        expect_corrupt(parts, "'" + name + "'");
    }
}

TEST(Trace, RefusesTensorsThatItDoesNotKnow) {
    TraceParts parts;
    parts.add("layer.5.q", TensorType::f32, {5, 4, 32});
    expect_corrupt(parts, "has 10 tensors; 2 layers make 9");
}

TEST(Trace, RefusesValuesThatAreNotFinite) {
    for (const char* name : {"layer.0.q", "layer.0.k", "layer.4.v", "layer.4.o"}) {
        for (float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
            TraceParts parts;
            parts.set(name, 17, value);
            expect_corrupt(parts, name);
        }
    }
}

TEST(Trace, RefusesAFileThatIsNotThereOrNotSafetensors) {
    EXPECT_EQ(read_trace("/no/such/trace").error(), Errc::not_found);
    TemporaryFile empty({});
    EXPECT_EQ(read_trace(empty.path()).error(), Errc::corrupt);
}

TEST(Trace, ReadsTheCapturedTraceOfARealModel) {
    auto trace = read_trace(std::filesystem::path(KVGRID_TEST_DATA) / "smollm2_135m_instruct.safetensors");

    ASSERT_TRUE(trace) << trace.error().to_string();
    EXPECT_EQ(trace->spec.name, "SmolLM2-135M-Instruct.trace");
    EXPECT_EQ(trace->spec.layer_count(), 3);
    EXPECT_EQ(trace->spec.group(), 3);
    EXPECT_EQ(trace->layers[2].model_layer, 29);
    EXPECT_EQ(trace->token_count(), 288);
}

// A value that the target type holds comes back as it was; others come back within one rounding.
TEST(TraceBytes, ComeBackRoundedOnce) {
    const std::vector<float> exact{0.f, -0.f, 1.f, -1.5f, 0.0078125f, 256.f};
    const std::vector<float> inexact{0.1f, -3.14159f, 1000.7f};
    for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        EXPECT_EQ(bytes_of(exact, dtype).size(), exact.size() * byte_size(dtype));
        EXPECT_EQ(floats_of(bytes_of(exact, dtype), dtype), exact) << name_of(dtype);
        std::vector<float> back = floats_of(bytes_of(inexact, dtype), dtype);
        for (std::size_t i = 0; i < back.size(); ++i)
            EXPECT_LE(std::abs(back[i] - inexact[i]), std::abs(inexact[i]) * unit_roundoff(dtype)) << name_of(dtype);
    }
}

}  // namespace
}  // namespace kvgrid::analysis
