// exchange_rows equals the fp64 reference of the merge within f32's rounding and that of the output, for whole and uneven head parts, exchange
// after exchange, launched or replayed from graphs; the root's slots are empty afterwards. A rank that does not come costs the others their time and
// nothing more, and an abort ends them at once; a rank runs at most two exchanges ahead of the root. Ranks are streams on one GPU.

#include "kernels/cuda/peer_exchange.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/merge_parts.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

using std::chrono::milliseconds;

// Words that the host and the kernels share.
class SharedWord {
  public:
    SharedWord() {
        void* memory = nullptr;
        check_cuda(cudaHostAlloc(&memory, sizeof(std::uint32_t), cudaHostAllocMapped), "cudaHostAlloc");
        word_ = static_cast<volatile std::uint32_t*>(memory);
        *word_ = 0;
    }
    ~SharedWord() { cudaFreeHost(const_cast<std::uint32_t*>(word_)); }

    volatile std::uint32_t* get() const { return word_; }

  private:
    volatile std::uint32_t* word_;
};

struct Shape {
    std::vector<int> heads_of_part;
    int sequence_parts;
    int root;
    int tokens;
    int head_dim;
    Dtype dtype;

    int head_parts() const { return static_cast<int>(heads_of_part.size()); }
    int ranks() const { return head_parts() * sequence_parts; }
    int heads_of_rank(int rank) const { return heads_of_part[rank / sequence_parts]; }
    int first_head(int part) const {
        int first = 0;
        for (int before = 0; before < part; ++before) first += heads_of_part[before];
        return first;
    }
    int heads() const { return first_head(head_parts()); }
    std::size_t rows_of_rank(int rank) const { return std::size_t(tokens) * heads_of_rank(rank); }
};

// One rank's side.
struct Rank {
    Rank(const Shape& shape, int index)
        : mailbox(PeerMailbox::bytes(shape.ranks(), index == shape.root)),
          partial(shape.rows_of_rank(index) * shape.head_dim),
          lse(shape.rows_of_rank(index)) {
        check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
        reset_peer_mailbox(mailbox.span());
    }
    ~Rank() { cudaStreamDestroy(stream); }
    Rank(const Rank&) = delete;

    DeviceArray<std::byte> mailbox;
    DeviceArray<float> partial, lse;
    std::vector<float> partial_on_host, lse_on_host;
    SharedWord failed;
    cudaStream_t stream = nullptr;
};

class Exchange {
  public:
    explicit Exchange(const Shape& shape) : shape_(shape) {
        for (int rank = 0; rank < shape.ranks(); ++rank) ranks_.push_back(std::make_unique<Rank>(shape, rank));
        merged_ =
            DeviceArray<std::byte>(std::size_t(shape.tokens) * shape.heads() * shape.head_dim * byte_size(shape.dtype));
        load_peer_exchange();
    }

    Rank& rank(int index) { return *ranks_[index]; }
    SharedWord& abort() { return abort_; }

    void fill(std::mt19937_64& random) {
        std::normal_distribution<float> normal;
        for (auto& rank : ranks_) {
            rank->partial_on_host.resize(rank->partial.span().size);
            rank->lse_on_host.resize(rank->lse.span().size);
            for (float& value : rank->partial_on_host) value = normal(random);
            for (float& value : rank->lse_on_host) {
                value = random() % 5 == 0 ? -std::numeric_limits<float>::infinity() : 3 * normal(random);
            }
            rank->partial.upload(rank->partial_on_host);
            rank->lse.upload(rank->lse_on_host);
        }
        check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    }

    PeerExchange work_of(int rank, milliseconds timeout) {
        PeerExchange work{.rank = rank,
                          .rank_count = shape_.ranks(),
                          .root = shape_.root,
                          .sequence_parts = shape_.sequence_parts,
                          .first_heads = {},
                          .token_count = shape_.tokens,
                          .head_dim = shape_.head_dim,
                          .partial = ranks_[rank]->partial.span().data,
                          .lse = ranks_[rank]->lse.span().data,
                          .merged = merged_.span().data,
                          .dtype = shape_.dtype,
                          .mailboxes = {},
                          .abort = abort_.get(),
                          .failed = ranks_[rank]->failed.get(),
                          .timeout_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(timeout).count())};
        for (int part = 0; part <= shape_.head_parts(); ++part) work.first_heads[part] = shape_.first_head(part);
        for (int other = 0; other < shape_.ranks(); ++other) work.mailboxes[other] = ranks_[other]->mailbox.span().data;
        return work;
    }
    void queue(int rank, milliseconds timeout = milliseconds(5000)) {
        exchange_rows(work_of(rank, timeout), ranks_[rank]->stream);
    }
    void wait() { check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }
    bool has_failed(int rank) const { return *ranks_[rank]->failed.get() != 0; }

    void expect_merged() {
        const std::vector<std::byte> merged = merged_.download();
        for (int part = 0; part < shape_.head_parts(); ++part) {
            const std::vector<double> expected = expected_of(part);
            const int heads = shape_.heads_of_part[part];
            for (std::size_t row = 0; row < std::size_t(shape_.tokens) * heads; ++row) {
                const std::size_t whole_row = row / heads * shape_.heads() + shape_.first_head(part) + row % heads;
                for (int dim = 0; dim < shape_.head_dim; ++dim) {
                    const float value = load_element(merged.data(), whole_row * shape_.head_dim + dim, shape_.dtype);
                    const double right = expected[row * shape_.head_dim + dim];
                    // Values are of size 1 to 5: sums of at most 16 terms and one rounding to the dtype.
                    const double allowed =
                        (unit_roundoff(shape_.dtype) + 64 * unit_roundoff(Dtype::f32)) * (std::abs(right) + 1e-2) +
                        1e-6;
                    ASSERT_NEAR(value, right, allowed) << "part " << part << " row " << row << " dim " << dim;
                }
            }
        }
    }
    void expect_empty_slots() {
        const std::vector<std::byte> mailbox = ranks_[shape_.root]->mailbox.download();
        EXPECT_TRUE(std::all_of(mailbox.begin() + PeerMailbox::kHeaderBytes, mailbox.end(),
                                [](std::byte byte) { return byte == std::byte{0xff}; }));
    }

  private:
    std::vector<double> expected_of(int part) const {
        const int first_rank = part * shape_.sequence_parts;
        const std::size_t rows = shape_.rows_of_rank(first_rank), stride = rows * shape_.head_dim;
        std::vector<float> partial, lse;
        for (int rank = first_rank; rank < first_rank + shape_.sequence_parts; ++rank) {
            std::ranges::copy(ranks_[rank]->partial_on_host, std::back_inserter(partial));
            lse.resize(partial.size());
            std::ranges::copy(ranks_[rank]->lse_on_host, lse.end() - static_cast<std::ptrdiff_t>(stride));
        }
        std::vector<double> merged(stride);
        merge_parts_reference({.partial = partial,
                               .lse = lse,
                               .part_stride = stride,
                               .part_count = shape_.sequence_parts,
                               .token_count = shape_.tokens,
                               .head_count = shape_.heads_of_part[part],
                               .head_dim = shape_.head_dim,
                               .merged = {},
                               .merged_dtype = Dtype::f32,
                               .merged_heads = shape_.heads_of_part[part],
                               .first_head = 0},
                              merged);
        return merged;
    }

    const Shape shape_;
    std::vector<std::unique_ptr<Rank>> ranks_;
    DeviceArray<std::byte> merged_;
    SharedWord abort_;
};

class PeerExchangeTest : public testing::Test {
  protected:
    std::mt19937_64 random_{test_seed()};
};

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        for (int head_dim : {40, 64, 96, 128, 256}) {
            all.push_back({{8}, 2, 0, 3, head_dim, dtype});
            all.push_back({{5, 4}, 1, 0, 2, head_dim, dtype});
            all.push_back({{3, 2}, 2, 3, 1, head_dim, dtype});
            all.push_back({{32}, 4, 1, 4, std::min(head_dim, 128), dtype});
        }
    }
    return all;
}

TEST_F(PeerExchangeTest, AgreesWithTheReferenceExchangeAfterExchange) {
    for (const Shape& shape : shapes()) {
        Exchange exchange(shape);
        for (int round = 0; round < 5; ++round) {
            exchange.fill(random_);
            for (int rank = 0; rank < shape.ranks(); ++rank) exchange.queue((rank + round) % shape.ranks());
            exchange.wait();
            for (int rank = 0; rank < shape.ranks(); ++rank) ASSERT_FALSE(exchange.has_failed(rank));
            exchange.expect_merged();
            if (HasFatalFailure()) return;
        }
        exchange.expect_empty_slots();
    }
}

TEST_F(PeerExchangeTest, CanBeReplayed) {
    const Shape shape{{8, 8}, 2, 0, 4, 128, Dtype::bf16};
    Exchange exchange(shape);
    std::vector<cudaGraphExec_t> graphs(shape.ranks());
    for (int rank = 0; rank < shape.ranks(); ++rank) {
        cudaGraph_t captured = nullptr;
        const cudaStream_t stream = exchange.rank(rank).stream;
        check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        exchange.queue(rank);
        check_cuda(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
        check_cuda(cudaGraphInstantiate(&graphs[rank], captured, 0), "cudaGraphInstantiate");
        cudaGraphDestroy(captured);
        check_cuda(cudaGraphUpload(graphs[rank], stream), "cudaGraphUpload");
    }
    for (int round = 0; round < 20; ++round) {
        exchange.fill(random_);
        for (int rank = 0; rank < shape.ranks(); ++rank)
            check_cuda(cudaGraphLaunch(graphs[rank], exchange.rank(rank).stream), "cudaGraphLaunch");
        exchange.wait();
        exchange.expect_merged();
        if (HasFatalFailure()) break;
    }
    for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
}

TEST_F(PeerExchangeTest, EndsInTimeWithoutARank) {
    const Shape shape{{8}, 3, 0, 2, 128, Dtype::bf16};
    Exchange exchange(shape);
    exchange.fill(random_);
    const auto began = std::chrono::steady_clock::now();

    exchange.queue(1, milliseconds(100));
    exchange.queue(0, milliseconds(100));
    exchange.wait();

    const auto took = std::chrono::steady_clock::now() - began;
    EXPECT_TRUE(exchange.has_failed(0));
    EXPECT_FALSE(exchange.has_failed(1));  // it had only to bring its rows
    EXPECT_GE(took, milliseconds(99));
    EXPECT_LT(took, milliseconds(1000));
}

TEST_F(PeerExchangeTest, EndsWhenItIsAborted) {
    const Shape shape{{8}, 2, 0, 2, 128, Dtype::bf16};
    Exchange exchange(shape);
    exchange.fill(random_);
    exchange.queue(0, milliseconds(60'000));
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_EQ(cudaStreamQuery(exchange.rank(0).stream), cudaErrorNotReady);

    *exchange.abort().get() = 1;
    const auto began = std::chrono::steady_clock::now();
    exchange.wait();

    EXPECT_TRUE(exchange.has_failed(0));
    EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(1000));
}

TEST_F(PeerExchangeTest, KeepsRanksFromRunningAhead) {
    const Shape shape{{8}, 2, 0, 2, 128, Dtype::bf16};
    Exchange exchange(shape);
    exchange.fill(random_);
    exchange.queue(1);
    exchange.queue(1);
    exchange.queue(1, milliseconds(60'000));
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_EQ(cudaStreamQuery(exchange.rank(1).stream), cudaErrorNotReady);

    for (int round = 0; round < 3; ++round) exchange.queue(0);
    exchange.wait();

    EXPECT_FALSE(exchange.has_failed(0) || exchange.has_failed(1));
    exchange.expect_merged();
    exchange.expect_empty_slots();
}

TEST_F(PeerExchangeTest, RefusesArgumentsThatBreakARule) {
    const Shape shape{{8}, 2, 0, 2, 128, Dtype::bf16};
    Exchange exchange(shape);
    const PeerExchange sound = exchange.work_of(0, milliseconds(100));
    const auto refuses = [&](const auto& change) {
        PeerExchange work = sound;
        change(work);
        EXPECT_THROW(exchange_rows(work, exchange.rank(0).stream), std::invalid_argument);
    };
    refuses([](PeerExchange& work) { work.rank_count = 1; });
    refuses([](PeerExchange& work) { work.rank = 2; });
    refuses([](PeerExchange& work) { work.root = -1; });
    refuses([](PeerExchange& work) { work.sequence_parts = 3; });
    refuses([](PeerExchange& work) { work.head_dim = 30; });
    refuses([](PeerExchange& work) { work.first_heads[0] = 1; });
    refuses([](PeerExchange& work) { work.first_heads[1] = 0; });
    refuses([](PeerExchange& work) { work.token_count = 1000; });
    refuses([](PeerExchange& work) { work.merged = nullptr; });
    refuses([](PeerExchange& work) { work.mailboxes[0] = nullptr; });
    refuses([](PeerExchange& work) { work.abort = nullptr; });
    refuses([](PeerExchange& work) { ++work.partial; });
}

}  // namespace
}  // namespace kvgrid::kernels
