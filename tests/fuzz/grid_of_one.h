#pragma once

#include <deque>
#include <set>

#include "comm/collective/collective.h"
#include "comm/rpc/server.h"
#include "worker/cpu_device.h"
#include "worker/executor.h"
#include "worker/lead.h"
#include "worker/service.h"
#include "worker/shard.h"

namespace kvgrid::fuzz {

// A lead and its shard as a worker process has them, on one thread and without sockets: requests go in as frames, operations are applied
// at once, and what becomes of them is told when the request has been handled.
class GridOfOne {
  public:
    static constexpr Generation kGeneration{3};
    static constexpr comm::ConnectionId kConnection = 5;

    explicit GridOfOne(std::uint64_t memory_bytes);

    // Hands over one request. It must be answered, once, and not with `internal`.
    void handle(comm::Frame frame);

    // The client goes, and every sequence is closed: all pages must be free again.
    void end();

    std::uint64_t answered() const { return answered_; }

  private:
    struct Links final : worker::GridLinks {
        explicit Links(GridOfOne& grid) : grid_(grid) {}
        int rank_count() const override { return 1; }
        Status send(int rank, const worker::Operation& operation) override;
        GridOfOne& grid_;
    };
    struct Completed {
        std::uint64_t number;
        worker::OperationResult result;
    };

    void apply(const worker::Operation& operation);
    void tell_completed();
    void require_pages_in_order() const;

    worker::CpuDevice device_{1};
    std::unique_ptr<comm::Collective> collective_;
    worker::Shard shard_;
    worker::Executor executor_;
    Links links_{*this};
    worker::Lead lead_{links_};
    worker::Service service_{lead_, kGeneration, {WorkerId{1}}, [this](auto handle, auto bytes) {
                                 return device_.open_memory(handle, bytes);
                             }};
    std::deque<Completed> completed_;
    std::set<SequenceId> open_;
    std::uint64_t handled_ = 0, answered_ = 0;
};

}  // namespace kvgrid::fuzz
