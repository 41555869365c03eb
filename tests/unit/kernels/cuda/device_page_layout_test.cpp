// The layout of a page in GPU memory is a bijection onto the block for every row size; packing and unpacking are inverse; 128-byte panels
// are swizzled as the tensor cores expect, which is shown on addresses worked out by hand. No GPU is needed.

#include "kernels/cuda/device_page_layout.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

// head_dim 32 to 256 in steps of 8, as two-byte elements; narrower rows, and 96 bytes, are one-byte elements.
std::vector<int> row_sizes() {
    std::vector<int> sizes = {16, 32, 48, 96};
    for (int head_dim = 32; head_dim <= 256; head_dim += 8) sizes.push_back(2 * head_dim);
    return sizes;
}

TEST(DevicePageLayout, GivesEveryByteAPlaceOfItsOwn) {
    for (int row_bytes : row_sizes()) {
        const DevicePageLayout layout{row_bytes};
        std::vector<int> hits(layout.page_bytes());
        for (int token = 0; token < kPageTokens; ++token) {
            for (int byte = 0; byte < row_bytes; ++byte) {
                ++hits.at(layout.k_offset(token, byte));
                ++hits.at(layout.v_offset(token, byte));
            }
        }
        EXPECT_EQ(hits, std::vector<int>(layout.page_bytes(), 1)) << "row_bytes " << row_bytes;
    }
}

TEST(DevicePageLayout, KeepsChunksWhole) {
    for (int row_bytes : row_sizes()) {
        const DevicePageLayout layout{row_bytes};
        for (int token = 0; token < kPageTokens; ++token) {
            for (int byte = 0; byte < row_bytes; ++byte) {
                EXPECT_EQ(layout.offset(token, byte), layout.offset(token, byte / 16 * 16) + byte % 16);
            }
        }
    }
}

TEST(DevicePageLayout, KeepsEightTokensOfAPanelInOneRun) {
    for (int row_bytes : row_sizes()) {
        const DevicePageLayout layout{row_bytes};
        for (int byte = 0; byte < row_bytes; ++byte) {
            const int panel = byte / DevicePageLayout::kPanelBytes;
            const std::size_t width = layout.panel_width(panel);
            for (int token = 0; token < kPageTokens; ++token) {
                const std::size_t in_panel = layout.offset(token, byte) - layout.panel_offset(panel);
                EXPECT_EQ(in_panel / (8 * width), static_cast<std::size_t>(token / 8));
            }
        }
    }
}

// ldmatrix reads the same chunk of 8 tokens at once: without conflicts if the 8 lie in the 8 groups of 4 banks.
TEST(DevicePageLayout, SpreadsEqualChunksOfEightTokensOverTheBanks) {
    for (int row_bytes : {64, 96, 128, 192, 256, 512}) {
        const DevicePageLayout layout{row_bytes};
        for (int first = 0; first < kPageTokens; first += 8) {
            for (int byte = 0; byte < row_bytes; byte += 16) {
                std::set<std::size_t> groups;
                for (int token = first; token < first + 8; ++token) groups.insert(layout.offset(token, byte) / 16 % 8);
                EXPECT_EQ(groups.size(), 8u) << "row_bytes " << row_bytes << " token " << first << " byte " << byte;
            }
        }
    }
}

TEST(DevicePageLayout, AgreesWithAddressesWorkedOutByHand) {
    const DevicePageLayout wide{256};  // head_dim 128, two-byte elements
    EXPECT_EQ(wide.page_bytes(), 32768u);
    EXPECT_EQ(wide.k_offset(0, 0), 0u);
    EXPECT_EQ(wide.k_offset(0, 130), 8192u + 2u);              // dim 65: second panel
    EXPECT_EQ(wide.k_offset(3, 16), 3u * 128 + (1 ^ 3) * 16);  // chunk 1 of token 3
    EXPECT_EQ(wide.k_offset(63, 255), 8192u + 63 * 128 + 0 * 16 + 15);
    EXPECT_EQ(wide.v_offset(8, 0), 16384u + 1024u);
    const DevicePageLayout narrow{192};  // head_dim 96: the second panel is 64 bytes wide
    EXPECT_EQ(narrow.k_offset(5, 128), 8192u + 5 * 64 + 2 * 16);
    EXPECT_EQ(narrow.v_offset(0, 0), 12288u);
}

TEST(DevicePageLayout, EndsPagesOfFp8ElementsWithATrailer) {
    const DevicePageLayout plain = DevicePageLayout::of(128, Dtype::f16, KvDtype::as_model);
    EXPECT_EQ(plain.row_bytes, 256);
    EXPECT_EQ(plain.page_bytes(), 32768u);
    const DevicePageLayout fp8 = DevicePageLayout::of(128, Dtype::f16, KvDtype::fp8_e4m3);
    EXPECT_EQ(fp8.row_bytes, 128);
    EXPECT_EQ(fp8.trailer_offset(), 16384u);
    EXPECT_EQ(fp8.page_bytes(), 16512u);
    EXPECT_EQ(DevicePageLayout::of(40, Dtype::bf16, KvDtype::fp8_e4m3).row_bytes, 48);  // whole chunks
}

TEST(DevicePageLayout, UnpacksWhatItPacked) {
    std::mt19937_64 random(test_seed());
    for (int row_bytes : row_sizes()) {
        const DevicePageLayout layout{row_bytes};
        std::vector<std::byte> rows(layout.block_bytes());
        for (std::byte& byte : rows) byte = static_cast<std::byte>(random());
        std::vector<std::byte> block(rows.size()), back(rows.size());

        pack_block(layout, rows, block);
        unpack_block(layout, block, back);

        EXPECT_EQ(back, rows) << "row_bytes " << row_bytes;
        for (int token = 0; token < kPageTokens; ++token) {
            EXPECT_EQ(block[layout.offset(token, row_bytes - 1)], rows[token * row_bytes + row_bytes - 1]);
        }
    }
}

TEST(DevicePageLayout, RefusesSizesThatDisagree) {
    std::vector<std::byte> rows(64 * 64), block(64 * 64);
    EXPECT_THROW(pack_block({128}, rows, block), std::invalid_argument);
    EXPECT_THROW(pack_block({0}, {}, {}), std::invalid_argument);
    EXPECT_THROW(unpack_block({24}, block, rows), std::invalid_argument);
    EXPECT_THROW(unpack_block({64}, std::span(block).first(64), rows), std::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::kernels
