// The check of a layer's k and v names what it found and where: the layer, the tensor, the token, the head and the element.

#include "worker/finite_check.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace kvgrid::worker {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kTokens = 5;

// 6 query and 3 KV heads of 32; layer 1 reads layer 0's KV.
ModelSpec spec_of(Dtype dtype) {
    return validated({.name = "m",
                      .layers = {{0}, {0}},
                      .query_heads = 6,
                      .kv_heads = 3,
                      .head_dim = 32,
                      .dtype = dtype,
                      .scale = 1})
        .value();
}

struct Place {
    int heads_before;  // of all tokens: the tensors that lie before
    int heads;
    int token, head, element;
};

// q, k and v of zeros, and one value somewhere.
std::vector<std::byte> tensors_with(const ModelSpec& spec, int heads, const Place& place, float value) {
    std::vector<std::byte> bytes(spec.row_bytes() * heads * kTokens);
    const std::size_t row = place.heads_before * kTokens + place.token * place.heads + place.head;
    store_element(bytes.data(), row * spec.head_dim + place.element, spec.dtype, value);
    return bytes;
}

TEST(FiniteCheck, NamesTensorTokenHeadAndElement) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        const ModelSpec spec = spec_of(dtype);
        const auto k = tensors_with(spec, 12, {6, 3, 4, 2, 31}, kNan);
        const Status k_refused = check_finite({spec, 0, kTokens, k});
        ASSERT_EQ(k_refused.error(), Errc::invalid_argument);
        EXPECT_EQ(k_refused.error().message,
                  "layer 0: k of token 4 of 5, KV head 2, element 31 is NaN: mend it and call the layer again, or "
                  "register the model with non_finite \"allow\"");

        const auto v = tensors_with(spec, 12, {9, 3, 0, 1, 7}, -kInfinity);
        const Status v_refused = check_finite({spec, 0, kTokens, v});
        ASSERT_EQ(v_refused.error(), Errc::invalid_argument);
        EXPECT_TRUE(
            v_refused.error().message.starts_with("layer 0: v of token 0 of 5, KV head 1, element 7 is -infinity:"))
            << v_refused.error().message;
    }
}

TEST(FiniteCheck, LooksAtKAndVAlone) {
    const ModelSpec spec = spec_of(Dtype::f32);
    EXPECT_TRUE(check_finite({spec, 0, kTokens, tensors_with(spec, 12, {0, 6, 0, 0, 0}, kNan)}));
    EXPECT_TRUE(check_finite({spec, 0, kTokens, tensors_with(spec, 12, {0, 6, 4, 5, 31}, kNan)}));
    EXPECT_TRUE(check_finite({spec, 1, kTokens, tensors_with(spec, 6, {0, 6, 4, 5, 31}, kNan)}));
    // A write step has no q.
    EXPECT_FALSE(check_finite({spec, 0, kTokens, tensors_with(spec, 6, {0, 3, 0, 0, 0}, kNan)}));
    EXPECT_FALSE(check_finite({spec, 0, kTokens, tensors_with(spec, 6, {3, 3, 4, 2, 31}, kNan)}));
}

}  // namespace
}  // namespace kvgrid::worker
