// The shard, executor and join that the other grid tests run on threads, as processes under mpirun: every rank makes the same calls, rank 0
// as the lead's executor, and each rank compares every output with the fp64 reference.
//
//   mpirun -np 4 mpi_grid_test      (as root: OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)

#include <fmt/format.h>

#include <cstdio>

#include "comm/collective/mpi_collective.h"
#include "tests/grid/driver.h"
#include "worker/cpu_device.h"
#include "worker/executor.h"
#include "worker/head_slices.h"

namespace kvgrid::tests {
namespace {

using worker::Operation;
using worker::OperationResult;
using worker::StepKind;

constexpr ModelId kModel{1};
constexpr std::chrono::seconds kPatience{60};

// Has the methods of ThreadGrid that run_step needs; every rank calls them, and all get the lead's output.
class MpiGrid {
  public:
    MpiGrid(std::unique_ptr<comm::Collective> collective, const ModelSpec& spec, const GridShape& shape)
        : collective_(std::move(collective)),
          spec_(spec),
          shape_(shape),
          shard_(collective_->rank(), 64 << 20, device_),
          executor_(shard_, *collective_, kPatience) {
        submit(worker::AddModel{kModel, spec, shape, 0}).status.value();
    }

    OperationResult submit(worker::OperationBody body, comm::Payload tensors = {}) {
        return executor_.apply({++number_, std::move(body), std::move(tensors)});
    }

    std::pair<StepId, OperationResult> begin(worker::BeginStep begin) {
        begin.step = StepId{++last_step_};
        return {begin.step, submit(begin)};
    }

    OperationResult layer(StepId step, int layer, const std::vector<std::byte>& tensors) {
        const int tokens = shard_.size_of_step(step).tokens;
        const bool has_q = shard_.attends(step);
        const worker::CallTensors call{comm::Payload::copy_of(tensors), tokens};
        const auto slices = worker::slice_by_head_part(spec_, shape_, has_q, spec_.owns_kv(layer), std::span(&call, 1));
        OperationResult result = submit(worker::RunLayer{{step}, layer}, slices[shape_.head_part(collective_->rank())]);
        std::vector<std::byte> output(has_q ? tokens * spec_.query_heads * spec_.row_bytes() : 0);
        if (result.status && collective_->rank() == 0) std::ranges::copy(result.tensors.bytes(), output.begin());
        collective_->broadcast(output, 0, deadline_in(kPatience)).value();
        result.tensors = comm::Payload::own(std::move(output));
        return result;
    }

    OperationResult commit(StepId step) { return submit(worker::CommitStep{step}); }
    OperationResult abort(StepId step) { return submit(worker::AbortStep{step}); }

    bool all_pages_are_free() const {
        const auto& pages = shard_.report()[0].pages;
        return pages.free == pages.capacity && shard_.find_model(kModel)->pool->recount_agrees();
    }

  private:
    std::unique_ptr<comm::Collective> collective_;
    ModelSpec spec_;
    GridShape shape_;
    worker::CpuDevice device_{1};
    worker::Shard shard_;
    worker::Executor executor_;
    std::uint64_t number_ = 0;
    std::uint64_t last_step_ = 0;
};

// Returns what went wrong, or "".
std::string exercise(comm::MpiWorld& world, const GridShape& shape, Generation generation) {
    std::vector<int> ranks(shape.workers());
    for (int r = 0; r < shape.workers(); ++r) ranks[r] = r;
    if (world.rank() >= shape.workers()) return {};
    ModelSpec spec = make_spec(3, 12, 3, 64, Dtype::bf16);
    if (shape.head_parts == 4) spec = make_spec(3, 12, 4, 64, Dtype::bf16);
    spec.layers[2] = {.kv_layer = 2, .window = 80, .sinks = 2};
    MpiGrid grid(world.form(ranks, generation, deadline_in(kPatience)).value(), spec, shape);
    ReferenceCache reference(spec);
    std::mt19937 random(17);
    const SequenceId a{1}, b{2}, c{3};
    std::string wrong;
    const auto step = [&](std::vector<worker::StreamTable::Part> parts, StepKind kind = StepKind::attend,
                          bool commit = true) {
        if (wrong.empty()) wrong = run_step(grid, reference, kModel, spec, parts, kind, random, commit);
    };
    for (SequenceId id : {a, b}) {
        grid.submit(worker::OpenSequence{id, kModel, {}}).status.value();
        reference.open(id, {});
    }
    step({{a, 200}, {b, 1}});
    step({{a, 1}, {b, 130}});
    grid.submit(worker::ForkSequence{a, c}).status.value();
    reference.fork(a, c);
    step({{a, 1}, {b, 1}, {c, 70}});
    step({{c, 10}}, StepKind::attend, /*commit=*/false);
    step({{c, 65}}, StepKind::write);
    step({{a, 1}, {b, 1}, {c, 1}});
    for (SequenceId id : {a, b, c}) grid.submit(worker::CloseSequence{id}).status.value();
    if (wrong.empty() && !grid.all_pages_are_free()) wrong = "pages did not come back";
    return wrong;
}

int run() {
    comm::MpiWorld world;
    int failures = 0;
    std::uint64_t generation = 0;
    for (const GridShape shape : {GridShape{2, 2}, {1, 4}, {4, 1}, {1, 2}, {3, 1}}) {
        const std::string wrong = exercise(world, shape, Generation{++generation});
        if (!wrong.empty()) ++failures;
        if (!wrong.empty() || world.rank() == 0) {
            std::printf("rank %d of a %d x %d grid: %s\n", world.rank(), shape.head_parts, shape.sequence_parts,
                        wrong.empty() ? "as the reference" : wrong.c_str());
        }
    }
    if (failures == 0 && world.rank() == 0) std::printf("all grids passed\n");
    return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace kvgrid::tests

int main() {
    try {
        return kvgrid::tests::run();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
