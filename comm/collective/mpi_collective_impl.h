#pragma once

// For the two .cpp files of the MPI back end only.

#include <mpi.h>

#include <atomic>
#include <memory>
#include <vector>

#include "comm/collective/checked_collective.h"

namespace kvgrid::comm {

void check_mpi(int code, const char* call);  // Fatal, with MPI's own text, unless MPI_SUCCESS

// One communicator. Non-blocking calls only, tested until the deadline: when a peer dies, Open MPI 4.1 reports nothing and a blocking call
// never returns. A request that does not complete cannot be cancelled: it is abandoned, with the buffers that it may still write to,
// which is why callers' memory is never given to MPI.
class MpiCollective final : public CheckedCollective {
  public:
    using Counter = std::shared_ptr<std::atomic<std::uint64_t>>;

    // Owns the communicator.
    MpiCollective(MPI_Comm comm, int rank, int size, Generation generation, Counter abandoned);
    ~MpiCollective() override;

    // All ranks tell each other their generation: stale_generation where they differ. Once, before any other call.
    Status confirm_generation(Deadline deadline);

  private:
    struct Buffers {
        std::vector<std::byte> mine;
        std::vector<std::byte> all;
        std::vector<MPI_Request> requests;  // of the call under way
    };

    Status run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, Deadline deadline) override;
    Status run_broadcast(std::span<std::byte> data, int root, Deadline deadline) override;
    Status run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) override;
    Status run_barrier(Deadline deadline) override;

    MPI_Request* new_request();
    Status wait(int begun, Deadline deadline);
    Status abandon(Error why);
    Status fail(int code);
    bool test(Status& status);

    MPI_Comm comm_;
    const Counter abandoned_;
    std::unique_ptr<Buffers> buffers_ = std::make_unique<Buffers>();
};

}  // namespace kvgrid::comm
