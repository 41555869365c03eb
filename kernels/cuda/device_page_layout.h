#pragma once

#include <cstddef>
#include <span>

#include "core/dtype.h"
#include "core/page_tokens.h"
#include "kernels/kv_dtype.h"

namespace kvgrid::kernels {

// Where the bytes of one page lie in GPU memory: K block then V block, each contiguous, each the exact image that ldmatrix and wgmma
// read from shared memory. So a block, or 8 tokens of it and more, is brought there by plain bulk copies. A page of fp8 elements ends with
// a trailer that begins with its PageScales.
//
//   A token's row of K or V has row_bytes = head_dim * element bytes, rounded up to a multiple of 16. It is cut into panels of 128 bytes;
//   what is left is one narrower panel. A block holds its panels one after the other, each [64 tokens][panel width]:
//
//     row_bytes 192:  [panel 0: 64 x 128 bytes, swizzled][panel 1: 64 x 64 bytes, swizzled]
//
//   Within a panel, 16-byte chunk c of token t lies at chunk c ^ (t mod 8) of its row if the panel is 128 bytes wide, c ^ (t / 2 mod 4)
//   if 64, c ^ (t / 4 mod 2) if 32 or 96, and c otherwise. Those of 128, 64 and 32 are the tensor cores' own swizzles of these widths. In
//   all of them, 8 tokens' equal chunks lie in different banks.
//
//   (token, byte of the row) -> offset in the block is a bijection; tokens are counted within the page, 0..63. It depends on row_bytes
//   alone, not on the element type. Slots of tokens that the page does not hold yet have any content, NaN included.
//   Rule    row_bytes is a multiple of 16.
//   Source  PTX ISA, "Shared Memory Matrix Layout" of wgmma (128-, 64- and 32-byte swizzling modes).
struct DevicePageLayout {
    static constexpr int kPanelBytes = 128;
    static constexpr int kChunkBytes = 16;
    static constexpr int kScalesTrailerBytes = 128;  // keeps pages aligned to 128 bytes

    int row_bytes;
    int trailer_bytes = 0;

    static constexpr DevicePageLayout of(int head_dim, Dtype dtype, KvDtype kv_dtype) {
        if (kv_dtype == KvDtype::as_model) return {head_dim * static_cast<int>(byte_size(dtype))};
        return {(head_dim + kChunkBytes - 1) / kChunkBytes * kChunkBytes, kScalesTrailerBytes};
    }

    constexpr std::size_t block_bytes() const { return std::size_t{kPageTokens} * row_bytes; }
    constexpr std::size_t trailer_offset() const { return 2 * block_bytes(); }
    constexpr std::size_t page_bytes() const { return trailer_offset() + trailer_bytes; }
    constexpr int panel_count() const { return (row_bytes + kPanelBytes - 1) / kPanelBytes; }
    constexpr int panel_width(int panel) const {
        const int left = row_bytes - panel * kPanelBytes;
        return left < kPanelBytes ? left : kPanelBytes;
    }
    static constexpr std::size_t panel_offset(int panel) { return std::size_t{kPageTokens} * kPanelBytes * panel; }

    // What is exclusive-ored into the chunk index of a token's row.
    static constexpr int swizzle(int token, int panel_width) {
        switch (panel_width) {
            case 128:
                return token & 7;
            case 64:
                return (token >> 1) & 3;
            case 96:
            case 32:
                return (token >> 2) & 1;
            default:
                return 0;
        }
    }

    constexpr std::size_t offset(int token, int byte) const {
        const int panel = byte / kPanelBytes;
        const int width = panel_width(panel);
        const int chunk = byte % kPanelBytes / kChunkBytes ^ swizzle(token, width);
        return panel_offset(panel) + static_cast<std::size_t>(token) * width + chunk * kChunkBytes + byte % kChunkBytes;
    }
    constexpr std::size_t k_offset(int token, int byte) const { return offset(token, byte); }
    constexpr std::size_t v_offset(int token, int byte) const { return block_bytes() + offset(token, byte); }
};

// At trailer_offset() of a page of fp8 elements: an element of K is its e4m3 number times k, one of V times v.
struct PageScales {
    float k, v;
};

// Between token-major rows [kPageTokens][row_bytes] and a block of a page; for tests and tools, on the host.
// Throw std::invalid_argument where sizes disagree or row_bytes is not a positive multiple of 16.
void pack_block(const DevicePageLayout& layout, std::span<const std::byte> rows, std::span<std::byte> block);
void unpack_block(const DevicePageLayout& layout, std::span<const std::byte> block, std::span<std::byte> rows);

}  // namespace kvgrid::kernels
