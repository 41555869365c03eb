#include "worker/head_slices.h"

#include <cstring>

namespace kvgrid::worker {

std::byte* copy_heads(const std::byte* from, int tokens, int heads, HeadRange taken, std::size_t row, std::byte* to) {
    const std::size_t run = taken.count * row;
    for (int token = 0; token < tokens; ++token, to += run) {
        std::memcpy(to, from + (static_cast<std::size_t>(token) * heads + taken.first) * row, run);
    }
    return to;
}

std::size_t call_tensor_bytes(const ModelSpec& spec, bool has_q, bool has_kv, int tokens) {
    const std::size_t heads = (has_q ? spec.query_heads : 0) + (has_kv ? 2 * spec.kv_heads : 0);
    return heads * spec.row_bytes() * tokens;
}

std::vector<comm::Payload> slice_by_head_part(const ModelSpec& spec, const GridShape& grid, bool has_q, bool has_kv,
                                              std::span<const CallTensors> calls) {
    if (grid.head_parts == 1 && calls.size() == 1) return {calls[0].bytes};
    const std::size_t row = spec.row_bytes();
    std::size_t tokens = 0;
    for (const CallTensors& call : calls) tokens += call.tokens;

    std::vector<comm::Payload> parts;
    for (int part = 0; part < grid.head_parts; ++part) {
        const HeadRange query = query_heads_of_part(spec, grid, part);
        const HeadRange kv = kv_heads_of_part(spec, grid, part);
        const std::size_t bytes = tokens * row * ((has_q ? query.count : 0) + (has_kv ? 2 * kv.count : 0));
        std::shared_ptr<std::byte[]> buffer(new std::byte[bytes]);
        std::byte* to = buffer.get();
        if (has_q) {
            for (const CallTensors& call : calls) {
                to = copy_heads(call.bytes.bytes().data(), call.tokens, spec.query_heads, query, row, to);
            }
        }
        for (int which = 0; has_kv && which < 2; ++which) {  // k, then v
            for (const CallTensors& call : calls) {
                const std::size_t skipped = (has_q ? spec.query_heads : 0) + which * spec.kv_heads;
                to = copy_heads(call.bytes.bytes().data() + skipped * row * call.tokens, call.tokens, spec.kv_heads, kv,
                                row, to);
            }
        }
        parts.emplace_back(buffer, std::span<const std::byte>(buffer.get(), bytes));
    }
    return parts;
}

}  // namespace kvgrid::worker
