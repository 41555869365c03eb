#include "client/python/bindings.h"
#include "client/python/record.h"

namespace kvgrid::python {

void bind_records(nb::module_& module) {
    Record<GridShape>(module, "Grid", "How a model's cache is split: head_parts x sequence_parts workers.")
        .field("head_parts", &GridShape::head_parts)
        .field("sequence_parts", &GridShape::sequence_parts)
        .finish();
    Record<RegisteredModel>(module, "RegisteredModel", "A model that the cluster knows.")
        .field("id", &RegisteredModel::id)
        .field("spec", &RegisteredModel::spec)
        .field("grid", &RegisteredModel::grid)
        .field("pool_bytes_per_worker", &RegisteredModel::pool_bytes_per_worker)
        .finish();
    Record<ModelOccupancy>(module, "ModelOccupancy",
                           "Pages of one model in one worker, from its allocator: free + used + reserved == capacity.")
        .field("model", &ModelOccupancy::model, "the model's id")
        .field("page_bytes", &ModelOccupancy::page_bytes)
        .field("capacity_pages", &ModelOccupancy::capacity_pages)
        .field("free_pages", &ModelOccupancy::free_pages)
        .field("used_pages", &ModelOccupancy::used_pages)
        .field("reserved_pages", &ModelOccupancy::reserved_pages, "of open steps")
        .field("shared_pages", &ModelOccupancy::shared_pages, "used pages that more than one sequence holds")
        .field("sequences", &ModelOccupancy::sequences)
        .field("stored_tokens", &ModelOccupancy::stored_tokens)
        .finish();
    Record<WorkerOccupancy>(module, "WorkerOccupancy", "One worker's pages, by model.")
        .field("worker", &WorkerOccupancy::worker, "the worker's id")
        .field("rank", &WorkerOccupancy::rank)
        .field("models", &WorkerOccupancy::models)
        .finish();
    Record<GridOccupancy>(module, "Occupancy", "Taken between two operations, at the same one on every worker.")
        .field("workers", &GridOccupancy::workers)
        .field("operations", &GridOccupancy::operations)
        .field("join_bytes", &GridOccupancy::join_bytes, "moved between workers by joins so far")
        .field("layer_calls", &GridOccupancy::layer_calls, "layer operations so far; merged ones count once")
        .field("merged_layer_calls", &GridOccupancy::merged_layer_calls,
               "client calls that shared an operation with another client's")
        .field("non_finite_refusals", &GridOccupancy::non_finite_refusals,
               "layer calls refused for a NaN or infinity in k or v")
        .field("steps_abandoned", &GridOccupancy::steps_abandoned, "aborted because their client's connection was lost")
        .field("steps_timed_out", &GridOccupancy::steps_timed_out, "aborted because no call of them came for long")
        .finish();
    Record<ClusterWorker>(module, "WorkerStatus", "A worker as the coordinator knows it.")
        .field("worker", &ClusterWorker::worker, "its id")
        .field("rank", &ClusterWorker::rank, "-1: standby")
        .field("endpoint", &ClusterWorker::endpoint)
        .field("host", &ClusterWorker::host)
        .field("process_id", &ClusterWorker::process_id)
        .field("alive", &ClusterWorker::alive)
        .field("draining", &ClusterWorker::draining, "asked to end")
        .field("memory_bytes", &ClusterWorker::memory_bytes)
        .field("version", &ClusterWorker::version)
        .field("models", &ClusterWorker::models, "as of its last heartbeat")
        .field("http_endpoint", &ClusterWorker::http_endpoint, "of its metrics; empty: none")
        .finish();
    Record<ClusterStatus>(module, "Status", "The cluster as its coordinator sees it.")
        .field("generation", &ClusterStatus::generation, "the number of the membership")
        .field("ready", &ClusterStatus::ready)
        .field("not_ready_because", &ClusterStatus::not_ready_because)
        .field("expected_workers", &ClusterStatus::expected_workers)
        .field("workers", &ClusterStatus::workers)
        .field("version", &ClusterStatus::version)
        .field("http_endpoint", &ClusterStatus::http_endpoint, "of the coordinator's web page and metrics; empty: none")
        .finish();
    Record<ListedSequence>(module, "ListedSequence", "A sequence that is open, of whichever client.")
        .field("id", &ListedSequence::id)
        .field("model", &ListedSequence::model, "the model's id")
        .field("tenant", &ListedSequence::tenant)
        .field("parent", &ListedSequence::parent, "the id that it was forked from; 0: none")
        .field("kept_tokens", &ListedSequence::kept_tokens, "not 0: nobody holds it, it is kept for these tokens")
        .finish();
    Record<SequenceInfo>(module, "SequenceInfo", "A sequence as the lead knows it.")
        .field("model", &SequenceInfo::model, "the model's id")
        .field("length", &SequenceInfo::length, "committed tokens")
        .field("window", &SequenceInfo::window, "tokens that each layer sees at most; 0: the model's own")
        .field("sinks", &SequenceInfo::sinks)
        .field("step_open", &SequenceInfo::step_open)
        .field("pages_by_rank", &SequenceInfo::pages_by_rank)
        .finish();
}

}  // namespace kvgrid::python
