#include "kernels/cuda/device_page_layout.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace kvgrid::kernels {

namespace {

void check_sizes(const DevicePageLayout& layout, std::size_t rows_bytes, std::size_t block_bytes) {
    if (layout.row_bytes < DevicePageLayout::kChunkBytes || layout.row_bytes % DevicePageLayout::kChunkBytes != 0) {
        throw std::invalid_argument("page layout: row_bytes is " + std::to_string(layout.row_bytes) +
                                    ", must be a positive multiple of 16");
    }
    if (rows_bytes != layout.block_bytes() || block_bytes != layout.block_bytes()) {
        throw std::invalid_argument("page layout: rows have " + std::to_string(rows_bytes) + " bytes and the block " +
                                    std::to_string(block_bytes) + ", both must have " +
                                    std::to_string(layout.block_bytes()));
    }
}

// Calls move(offset in the rows, offset in the block) for each chunk.
template <class Move>
void for_each_chunk(const DevicePageLayout& layout, const Move& move) {
    for (int token = 0; token < kPageTokens; ++token) {
        for (int byte = 0; byte < layout.row_bytes; byte += DevicePageLayout::kChunkBytes) {
            move(static_cast<std::size_t>(token) * layout.row_bytes + byte, layout.offset(token, byte));
        }
    }
}

}  // namespace

void pack_block(const DevicePageLayout& layout, std::span<const std::byte> rows, std::span<std::byte> block) {
    check_sizes(layout, rows.size(), block.size());
    for_each_chunk(layout, [&](std::size_t in_rows, std::size_t in_block) {
        std::memcpy(&block[in_block], &rows[in_rows], DevicePageLayout::kChunkBytes);
    });
}

void unpack_block(const DevicePageLayout& layout, std::span<const std::byte> block, std::span<std::byte> rows) {
    check_sizes(layout, rows.size(), block.size());
    for_each_chunk(layout, [&](std::size_t in_rows, std::size_t in_block) {
        std::memcpy(&rows[in_rows], &block[in_block], DevicePageLayout::kChunkBytes);
    });
}

}  // namespace kvgrid::kernels
