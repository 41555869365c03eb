#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {

// A cluster that has done all kinds of things, so that every metric has a value: steps, refusals.
class BusyCluster {
  public:
    explicit BusyCluster(int workers) : cluster_(workers) {
        const ModelSpec spec =
            parse_model_spec(R"({"name": "busy", "layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 32,
                                                    "dtype": "f32"})")
                .value();
        const RegisteredModel model = client().register_model(spec, {.pool_bytes_per_worker = 8 << 20}).value();
        sequence_.emplace(client().open(model).value());
        for (const int tokens : {100, 1}) {
            const StepPart part{&*sequence_, tokens};
            Step step = client().begin({&part, 1}).value();
            const std::vector<std::byte> q(tokens * spec.query_heads * spec.row_bytes()), kv(q.size() / 2);
            EXPECT_FALSE(step.layer(1, {q, kv, kv}));
            for (int layer = 0; layer < 2; ++layer) EXPECT_TRUE(step.layer(layer, {q, kv, kv}));
            EXPECT_TRUE(step.commit());
        }
        EXPECT_FALSE(client().open(model, {.expected_tokens = 1 << 30}));
    }

    Client& client() { return cluster_.client(); }
    std::vector<std::string> endpoints() {
        const ClusterStatus status = client().status().value();
        std::vector<std::string> all{status.http_endpoint};
        for (const ClusterWorker& worker : status.workers) all.push_back(worker.http_endpoint);
        return all;
    }

  private:
    E2eCluster cluster_;
    std::optional<Sequence> sequence_;
};

}  // namespace kvgrid::e2e
