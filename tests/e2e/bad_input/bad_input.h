#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/e2e/bad_input/polling.h"
#include "tests/e2e/bad_input/raw_client.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {

inline constexpr int kTrunkTokens = 150;  // ends in the middle of a page
inline constexpr std::uint64_t kUnsentMax = 32 << 20;

// Three layers, of which the last reads the first one's KV; 4 query and 2 KV heads of 64, f32.
ModelSpec bad_input_spec();

// The tensors of one layer of a step, as one run of numbers makes them.
struct LayerBytes {
    std::vector<std::byte> q, k, v;

    LayerInput input() const { return {q, k, v}; }
    std::string wire() const;  // as the payload of a layer frame
};
LayerBytes layer_bytes(const ModelSpec& spec, int layer, int tokens, std::uint64_t run);

// One step of `tokens` on a sequence: the outputs of all layers, one behind the other. Then committed or aborted.
std::vector<std::byte> run_step(Client& client, const ModelSpec& spec, const Sequence& sequence, int tokens,
                                std::uint64_t run, bool commit);

// "worker 1, model 1: 512 pages, 500 free, 12 used, 0 reserved, 0 shared, 1 sequences, 300 stored" and so on, from the allocators.
// Also looks whether free + used + reserved make up the pool.
std::string pages_of(Client& client);

// Two workers (one sequence part each), a model, and a sequence of some tokens. Before and after each test the pages of both workers
// are counted, and the sequence is asked the same question: counts and answers must be the same to the last bit.
class BadInput : public testing::Test {
  protected:
    static void SetUpTestSuite();
    static void TearDownTestSuite();
    void SetUp() override;
    void TearDown() override;

    static Client& client() { return shared_->cluster.client(); }
    static const RegisteredModel& model() { return *shared_->model; }
    static const ModelSpec& spec() { return shared_->model->spec; }
    static Sequence& trunk() { return *shared_->trunk; }
    static cli::LocalCluster& cluster() { return shared_->cluster.cluster(); }

    RawClient raw_lead();         // a new connection
    RawClient raw_coordinator();  // the same
    StepId begin(RawClient& lead, SequenceId sequence, int tokens);

    // Whether the page counts become again what they were before the test.
    bool pages_come_back(std::chrono::milliseconds within);
    std::vector<std::byte> ask_trunk();

  private:
    struct Shared {
        E2eCluster cluster{2, {"--unsent-max", std::to_string(kUnsentMax)}};
        std::optional<RegisteredModel> model;
        std::optional<Sequence> trunk;
    };
    static inline std::unique_ptr<Shared> shared_;
    std::string pages_before_;
    std::vector<std::byte> answers_before_;
};

}  // namespace kvgrid::e2e
