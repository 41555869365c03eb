#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"

namespace kvgrid::kernels {

namespace {

// One query token of one head: what it may see, and where its rows lie.
struct Query {
    const AttentionItem& item;
    std::int64_t order;  // its order number in the sequence
    std::size_t row;     // its row in q, partial and lse, heads counted in
    int kv_head;
};

bool sees(const Attention& work, const Query& query, std::int64_t key) {
    const bool earlier = work.strictly_earlier ? key < query.order : key <= query.order;
    const bool in_window = query.item.window == 0 || key > query.order - query.item.window || key < query.item.sinks;
    return earlier && in_window;
}

double logit(const Attention& work, const std::vector<double>& q, const std::byte* page, int token) {
    const int head_dim = work.heads.head_dim;
    const PageLayout layout{head_dim};
    double product = 0;
    for (int dim = 0; dim < head_dim; ++dim) {
        product += q[dim] * load_element(page, layout.k_index(token, dim), work.dtype);
    }
    const double scaled = work.scale * product;
    return work.soft_cap > 0 ? work.soft_cap * std::tanh(scaled / work.soft_cap) : scaled;
}

// A visible token: its logit and where its V row begins.
struct Seen {
    double logit;
    const std::byte* page;
    int token;
};

std::vector<Seen> collect(const Attention& work, const Query& query) {
    const std::size_t head_dim = work.heads.head_dim;
    std::vector<double> q(head_dim);
    for (std::size_t dim = 0; dim < head_dim; ++dim) {
        q[dim] = load_element(work.q.data(), query.row * head_dim + dim, work.dtype);
    }
    std::vector<Seen> seen;
    for (const PageEntry& entry : query.item.streams[query.kv_head]) {
        const std::byte* page = work.slab.page(entry.page);
        for (int token = 0; token < static_cast<int>(entry.token_count); ++token) {
            if (sees(work, query, entry.first_token + token)) {
                seen.push_back({logit(work, q, page, token), page, token});
            }
        }
    }
    return seen;
}

void attend(const Attention& work, const Query& query, std::span<double> partial, double& lse) {
    for (double& element : partial) element = 0;
    const std::vector<Seen> seen = collect(work, query);
    double logit_max = -std::numeric_limits<double>::infinity();
    for (const Seen& key : seen) logit_max = std::max(logit_max, key.logit);
    lse = logit_max;
    if (seen.empty()) return;

    double denominator = 0;
    for (const Seen& key : seen) denominator += std::exp(key.logit - logit_max);
    lse = logit_max + std::log(denominator);

    const PageLayout layout{work.heads.head_dim};
    for (const Seen& key : seen) {
        const double weight = std::exp(key.logit - logit_max) / denominator;
        for (int dim = 0; dim < work.heads.head_dim; ++dim) {
            partial[dim] += weight * load_element(key.page, layout.v_index(key.token, dim), work.dtype);
        }
    }
}

}  // namespace

void attention_reference(const Attention& work, std::span<double> partial, std::span<double> lse) {
    check_attention(work, partial.size(), lse.size());
    std::vector<Query> queries;
    for (const AttentionItem& item : work.items) {
        for (int token = 0; token < item.query_count; ++token) {
            for (int head = 0; head < work.heads.query_heads; ++head) {
                const std::size_t row =
                    static_cast<std::size_t>(item.first_row + token) * work.heads.query_heads + head;
                queries.push_back({item, item.first_query + token, row, head / work.heads.group()});
            }
        }
    }
    const std::size_t thread_count = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::jthread> threads;
    for (std::size_t first = 0; first < std::min(thread_count, queries.size()); ++first) {
        threads.emplace_back([&, first] {
            for (std::size_t index = first; index < queries.size(); index += thread_count) {
                const Query& query = queries[index];
                const std::size_t head_dim = work.heads.head_dim;
                attend(work, query, partial.subspan(query.row * head_dim, head_dim), lse[query.row]);
            }
        });
    }
}

}  // namespace kvgrid::kernels
