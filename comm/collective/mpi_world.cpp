#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "comm/collective/mpi_collective.h"
#include "comm/collective/mpi_collective_impl.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

constexpr std::chrono::seconds kFinalizeTime{30};

// Ends the process if it is not destroyed by its deadline: for the calls of MPI that cannot be given up.
class LastResort {
  public:
    LastResort(std::string what, Deadline deadline)
        : thread_([this, what = std::move(what), deadline] { watch(what, deadline); }) {}

    ~LastResort() {
        {
            std::lock_guard lock(mutex_);
            done_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }

  private:
    void watch(const std::string& what, Deadline deadline) {
        std::unique_lock lock(mutex_);
        if (changed_.wait_until(lock, deadline, [this] { return done_; })) return;
        log_error(what + " has not returned by its deadline and cannot be given up: ending this process");
        std::_Exit(EXIT_FAILURE);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::thread thread_;  // last: it uses the others
};

// Told apart by communicator and, while that is made, by tag: every MPI has at least 32767 of them.
int tag_of(Generation generation) {
    return static_cast<int>(generation.value % 32'767);
}

MPI_Comm create_group(const std::vector<int>& world_ranks, Generation generation) {
    MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
    check_mpi(MPI_Group_incl(world, static_cast<int>(world_ranks.size()), world_ranks.data(), &group),
              "MPI_Group_incl");
    MPI_Comm comm = MPI_COMM_NULL;
    check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, group, tag_of(generation), &comm), "MPI_Comm_create_group");
    check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    return comm;
}

}  // namespace

MpiWorld::MpiWorld() {
    // Open MPI's MPI_Finalize waits for all ranks of the world unless told so: a worker that is drained would wait for those that stay.
    setenv("OMPI_MCA_async_mpi_finalize", "1", /*overwrite=*/0);
    // The join's blocks of a decode go at once; beyond this limit (4 KiB by default) the ranks first agree that they may.
    setenv("OMPI_MCA_btl_vader_eager_limit", "32768", /*overwrite=*/0);
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_FUNNELED) fatal("this MPI allows no threads beside the one that calls it");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
    std::random_device random;
    id_ = std::uint64_t{random()} << 32 | random() | 1;
    check_mpi(MPI_Bcast(&id_, sizeof id_, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast");
}

MpiWorld::~MpiWorld() {
    const LastResort watchdog("MPI_Finalize", deadline_in(kFinalizeTime));
    MPI_Finalize();
}

Result<std::unique_ptr<Collective>> MpiWorld::form(const std::vector<int>& world_ranks, Generation generation,
                                                   Deadline deadline) {
    const auto mine = std::ranges::find(world_ranks, rank_);
    std::vector<int> sorted = world_ranks;
    std::ranges::sort(sorted);
    const bool valid = mine != world_ranks.end() && sorted.front() >= 0 && sorted.back() < size_ &&
                       std::ranges::adjacent_find(sorted) == sorted.end();
    if (!valid) {
        return {Errc::invalid_argument, "a collective is formed of different ranks of the world's " +
                                            std::to_string(size_) + ", among them one's own (" + std::to_string(rank_) +
                                            ")"};
    }
    const int rank = static_cast<int>(mine - world_ranks.begin());
    const int size = static_cast<int>(world_ranks.size());
    if (size == 1) return {std::make_unique<MpiCollective>(MPI_COMM_NULL, rank, size, generation, abandoned_)};

    const std::string what =
        "forming generation " + std::to_string(generation.value) + " of " + std::to_string(size) + " ranks";
    MPI_Comm comm = MPI_COMM_NULL;
    {
        const LastResort watchdog(what, deadline);
        comm = create_group(world_ranks, generation);
    }
    auto formed = std::make_unique<MpiCollective>(comm, rank, size, generation, abandoned_);
    // Tags repeat, and lists may disagree.
    if (auto same = formed->confirm_generation(deadline); !same.ok()) return same.error();
    return {std::move(formed)};
}

std::uint64_t MpiWorld::abandoned_request_count() const {
    return *abandoned_;
}

}  // namespace kvgrid::comm
