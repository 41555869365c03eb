#pragma once

namespace kvgrid::kernels {

// Heads of one shard: query head h reads KV head h / (query_heads / kv_heads).
struct HeadShape {
    int query_heads;
    int kv_heads;
    int head_dim;

    constexpr int group() const { return query_heads / kv_heads; }
};

}  // namespace kvgrid::kernels
