#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "worker/device.h"
#include "worker/gpu/batch_plan.h"
#include "worker/gpu/call_times.h"
#include "worker/gpu/counters.h"
#include "worker/gpu/graph_epochs.h"
#include "worker/gpu/layer_classes.h"
#include "worker/gpu/page_lists.h"

namespace kvgrid::worker {

// The pages of one model in GPU memory, and the kernels over them.
//
//   A layer call   inputs -> [append, q] -> decode kernels -> chunk kernels -> outputs, on one stream, and waits if the host gets outputs.
//   Small calls    read q, k, v from mapped host memory and write their output there: no copies are queued.
//   Device memory  tensors that lie there are used where they are.
//   Graphs         the second decode of a shape and layer, with tensors in the host's memory, is captured, and replayed from then on, as long
//                  as no buffer moves. The program's own graphs are void by the same rules: GraphEpochs.
//   Invariant      whatever moves a buffer, or writes to one from the host, waits first: settle().
class GpuModel final : public DeviceModel {
  public:
    // CudaError where the GPU has not the memory.
    GpuModel(const DeviceModelShape& shape, std::uint32_t page_count, const GpuStream& stream, int multiprocessor_count,
             GpuCounters& counters);
    ~GpuModel() override;

    Status begin(std::span<const BatchPart> parts) override;
    void copy_pages(std::span<const kernels::PagePair> pairs) override;
    Status run(const DeviceLayer& layer) override;
    Result<std::uint64_t> prepare(const DeviceBatch& batch) override;
    Status replay(std::span<const StepId> steps, std::span<const int> layers, std::uint64_t graph_epoch) override;
    Status check_not_captured() const override;
    void end(StepId step) override;
    void read(std::span<const kernels::PageRun> runs, int row_count, std::span<std::byte> out) override;
    void write(std::span<const kernels::PageRun> runs, int row_count, std::span<const std::byte> k,
               std::span<const std::byte> v) override;
    void forget(SequenceId sequence) override { lists_.forget(sequence); }

  private:
    // One set of steps, planned for each class of layers that they have come to.
    struct Batch {
        std::vector<StepId> steps;                      // none: free
        std::vector<std::unique_ptr<BatchPlan>> plans;  // [class]
        std::vector<bool> made;
        std::uint64_t last_used = 0;
        std::uint64_t graph_epoch = 0;  // as prepared, for so many rows; 0: not yet
        int rows = 0;
        bool attends = false;
    };
    // Where a call's tensors lie for the kernels.
    struct Places {
        kernels::DeviceSpan<const std::byte> q, k, v;
        kernels::DeviceSpan<std::byte> q_copy;  // empty: q is read where it is
        kernels::DeviceSpan<std::byte> whole;
        kernels::DeviceSpan<float> partial, lse;
        int first_kv_head = 0;        // of a token's in k and v; its query heads are the first of q
        bool in_host_memory = false;  // staged tensors
        const void* output() const { return whole.size > 0 ? static_cast<const void*>(whole.data) : partial.data; }
    };
    struct Workspace {
        explicit Workspace(GpuCounters& counters) : memory(counters.memory, GpuMemoryKind::scratch) {}
        GpuBuffer memory;
        int decode_blocks = 0;  // for which it lies
    };
    struct GraphKey;
    struct Graph;

    void settle();
    Error no_room(const std::exception& cause);
    Status check(const DeviceLayer& layer, GpuStream::Capture capture);
    void reserve(std::span<const BatchPart> parts);
    std::size_t scratch_bytes(const kernels::DecodeShape& shape, int list_pages_max, int chunk_count) const;
    Batch* find_batch(std::span<const StepId> steps);
    Batch& batch_of(std::span<const StepId> steps);
    BatchPlan& plan_of(Batch& batch, std::span<const BatchPart> parts, int layer);
    void make_plan(Batch& batch, std::span<const BatchPart> parts, int layer);
    void provide_blocks(std::span<const BatchPart> parts, int layer);
    void load_kernels(const DeviceBatch& of, const BatchPlan& plan, int layer);
    std::uint64_t epoch_of(const Batch& batch);
    Places place(const DeviceLayer& layer);
    void cut_queries(const DeviceLayer& layer, Places& places);
    void stage_inputs(const DeviceLayer& layer, Places& places);
    void stage_outputs(const DeviceLayer& layer, Places& places);
    void queue(const DeviceLayer& layer, const BatchPlan& plan, const Places& places, kernels::Stream stream,
               const kernels::PeerExchange* join = nullptr);
    bool joins_in_tail(const DeviceLayer& layer, const BatchPlan& plan) const;
    Status launch(const DeviceLayer& layer, std::size_t batch_index, const BatchPlan& plan, const Places& places);
    void fetch(const DeviceLayer& layer, const Places& places);
    kernels::DeviceSpan<float> workspace_for(const BatchPlan& plan);
    kernels::DeviceSpan<std::byte> scratch_for(const BatchPlan& plan);
    int move_count() const;
    void count(bool attends, const BatchPlan& plan);

    const DeviceModelShape shape_;
    const GpuStream& stream_;
    const int multiprocessor_count_;  // of this device's share
    int decode_blocks_;               // of every decode schedule
    GpuCounters& counters_;
    const LayerClasses classes_;
    GpuBuffer pages_;
    PageLists lists_;
    std::array<Batch, 4> batches_;
    std::uint64_t use_count_ = 0;

    PinnedBuffer host_inputs_, host_outputs_;
    GpuBuffer inputs_, outputs_;
    GpuBuffer widened_;
    std::array<Workspace, 7> workspaces_;  // workspace_for
    int own_moves_ = 0;
    int staging_moves_ = 0;  // of the four buffers above, which the program's graphs do not use

    std::map<GraphKey, Graph> graphs_;
    int moves_at_capture_ = 0;
    GraphEpochs epochs_;
    using KernelKind = std::tuple<int, kernels::UnitCut::Kind, bool, bool>;
    std::set<KernelKind> loaded_;
    bool is_queued_ = false;  // there may be work that nobody has waited for
    CallTimes times_;
};

}  // namespace kvgrid::worker
