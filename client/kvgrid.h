#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/ids.h"
#include "core/model_spec.h"
#include "core/prefix_hash.h"
#include "core/result.h"
#include "core/sharding.h"

// The C++ client of a kvgrid cluster. Installed as <kvgrid/kvgrid.h>, with what it needs of core beside it:
//
//   find_package(kvgrid REQUIRED)
//   target_link_libraries(program PRIVATE kvgrid::client)
//
//   Threads   All calls may be made from any thread, also on one object, and block until they end; not while the object
//             is moved or destroyed. A handle that was moved from may only be destroyed or assigned to. Sequences and
//             steps may outlive the Client that made them: the connection lasts until the last of them is gone.
//   Errors    Every call ends by its deadline, ClientOptions::timeout after it began. Calls that only read (status,
//             lists, attach, inspect, read_kv, occupancy) find the new lead and are repeated with back-off until then
//             when the connection breaks or the membership changes. All others are sent once: what `unavailable`,
//             `deadline_exceeded` and `stale_generation` mean for them is the caller's to decide, and the next call
//             looks for the lead again. `peer_lost` names the worker that is gone, with its rank, pid and host: every
//             sequence of its grid is lost, and can be opened again when the next grid is there.
//   Needs     nothing of CUDA, MPI, Asio or Protobuf in the program that includes this.
namespace kvgrid {

struct ClientOptions {
    std::chrono::milliseconds timeout{30'000};  // of each call
    bool wait_until_ready = true;               // false: connect calls nobody, so that `status` can say what is missing
};

struct RegisteredModel {
    ModelId id;
    ModelSpec spec;
    GridShape grid;
    std::uint64_t pool_bytes_per_worker = 0;
};

struct ModelOptions {
    GridShape grid{0, 0};                     // {0, 0}: the default split
    std::uint64_t pool_bytes_per_worker = 0;  // 0: all memory of each worker that no model has yet
};

struct OpenOptions {
    std::string tenant = "default";
    std::int64_t expected_tokens = 0;  // 0: not known; otherwise refused (no_room) if the grid could not hold them now
    std::int64_t window = 0;  // 0: the model's own; otherwise every layer sees at most this many tokens (lossy)
    std::int64_t sinks = 0;   // first tokens that stay visible in spite of the window
    // Names of the whole pages of the prompt, not with a window. The sequence begins with as many of them as some kept one of this tenant has
    // (Sequence::keep), and shares their pages until it writes: Sequence::prefix_length. Leave out the page that ends the prompt: the output of its
    // last token has to be computed.
    std::vector<PrefixHash> prefix = {};
};

// Pages of one model in one worker, from its allocator: free + used + reserved == capacity.
struct ModelOccupancy {
    ModelId model;
    std::uint64_t page_bytes = 0;
    std::uint64_t capacity_pages = 0;
    std::uint64_t free_pages = 0;
    std::uint64_t used_pages = 0;
    std::uint64_t reserved_pages = 0;
    std::uint64_t shared_pages = 0;  // those of the used pages that more than one sequence holds
    std::uint64_t sequences = 0;
    std::uint64_t stored_tokens = 0;
};

struct WorkerOccupancy {
    WorkerId worker;
    int rank = 0;
    std::vector<ModelOccupancy> models;
};

// Taken between two operations, at the same one on every worker.
struct GridOccupancy {
    std::vector<WorkerOccupancy> workers;
    std::uint64_t operations = 0;
    std::uint64_t join_bytes = 0;           // moved between workers by joins so far
    std::uint64_t layer_calls = 0;          // layer operations so far; merged ones count once
    std::uint64_t merged_layer_calls = 0;   // client calls that shared an operation with another client's
    std::uint64_t non_finite_refusals = 0;  // layer calls refused for a NaN or infinity in k or v
    std::uint64_t steps_abandoned = 0;      // aborted because their client's connection was lost
    std::uint64_t steps_timed_out = 0;      // aborted because no call of them came for long
};

struct ClusterWorker {
    WorkerId worker;
    int rank = -1;  // -1: standby
    std::string endpoint;
    std::string host;
    int process_id = 0;
    bool alive = false;
    bool draining = false;  // asked to end
    std::uint64_t memory_bytes = 0;
    std::string version;                 // empty: it has not said yet
    std::vector<ModelOccupancy> models;  // as of its last heartbeat
    std::string http_endpoint;           // of its /metrics, /live, /ready and /version; empty: none
};

struct ClusterStatus {
    Generation generation;
    bool ready = false;
    std::string not_ready_because;
    int expected_workers = 0;
    std::vector<ClusterWorker> workers;
    std::string version;
    std::string http_endpoint;  // of the coordinator; empty: none
};

struct ListedSequence {
    SequenceId id;
    ModelId model;
    std::string tenant;
    SequenceId parent;             // that it was forked from; {}: none
    std::int64_t kept_tokens = 0;  // not 0: nobody holds it, it is kept for these tokens (Sequence::keep)
};

// Sequences by id. The next page begins after the last of these.
struct SequencePage {
    std::vector<ListedSequence> sequences;
    bool more = false;
};

struct SequencePageOptions {
    ModelId model;     // {}: of all models
    SequenceId after;  // {}: the first page
    int limit = 0;     // 0: what the coordinator puts on a page (10,000), which is also the most
};

struct SequenceInfo {
    ModelId model;
    std::int64_t length = 0;
    std::int64_t window = 0;
    std::int64_t sinks = 0;
    bool step_open = false;
    std::vector<std::uint64_t> pages_by_rank;
};

struct TraceOptions {
    int steps = 1;                               // ends when so many steps have ended,
    std::chrono::milliseconds duration{30'000};  // or after this time
    int spans_max = 20'000;                      // of each worker; what comes later is only counted
};

enum class TraceLane { io, executor, waiting };  // spans of the first two follow or contain one another

struct TraceSpan {
    std::string name;
    TraceLane lane;
    std::int64_t
        start_ns;  // on the lead's steady_clock; workers of other hosts: as near to it as a collective is simultaneous
    std::int64_t end_ns;
    std::uint64_t operation;  // its number in the grid's order; 0: not known there
};

struct RankTrace {
    int rank = 0;
    std::string host;
    int process_id = 0;
    bool finished = false;  // nothing more will be recorded
    int steps = 0;          // that have ended meanwhile
    std::uint64_t dropped = 0;
    std::vector<TraceSpan> spans;
};

struct GridTrace {
    std::vector<RankTrace> ranks;
};

struct KvRows {
    std::vector<std::byte> k;  // [token_count, kv_heads, head_dim] in the model's dtype
    std::vector<std::byte> v;
};

// The tensors of one layer call, in the model's dtype; rows are the step's new tokens in the order of its parts. In an iterate step q may be empty, or
// k and v.
struct LayerInput {
    std::span<const std::byte> q;  // [tokens, query_heads, head_dim]; empty in a write step
    std::span<const std::byte> k;  // [tokens, kv_heads, head_dim]; empty where the layer owns no KV
    std::span<const std::byte> v;
};

// The same in GPU memory that was shared with Client::share_device_memory: where each begins, in bytes from the memory's beginning, at multiples of
// 16. What the call does not have is not looked at.
struct DeviceTensors {
    std::uint64_t q = 0, k = 0, v = 0;
    std::uint64_t o = 0;  // out, [tokens, query_heads, head_dim]; overlaps none of the others
    int memory = 0;       // which of those that are shared
    // In an iterate step: the call has no q (and no o), or no k and v.
    bool without_q = false, without_kv = false;
};

class Sequence;
class Step;

// New tokens of one sequence in a step.
struct StepPart {
    const Sequence* sequence;
    int tokens;
};

enum class StepKind {
    attend,  // every layer is called, in order, with q (and k, v where it owns KV)
    write,   // only the layers that own KV are called, in order, with k and v; nothing is attended: bulk import
    // Layers are called in any order, and again, with q, with k and v where they own KV, or with all: k and v replace what the step wrote for its
    // new tokens, and q sees what stands there. For models with layers that read a later layer's KV, whose prompts are computed in passes. A
    // layer is attended once the KV that it reads was written, and the step committed once all KV layers were (wrong_state).
    // `unsupported` for a kv_dtype of fp8, whose scales cannot be taken back.
    iterate,
};

class Client {
  public:
    // Connects to a coordinator: "unix:/path" or "host:port". Waits for the cluster to be ready, up to the time-out;
    // `unavailable` says then that nobody answered, or why the cluster is not ready.
    static Result<Client> connect(const std::string& endpoint, ClientOptions options = {});
    Client(Client&&) noexcept;
    Client& operator=(Client&&) noexcept;
    ~Client();

    Result<ClusterStatus> status();
    Result<RegisteredModel> register_model(const ModelSpec& spec, ModelOptions options = {});
    Result<std::vector<RegisteredModel>> models();

    Result<Sequence> open(const RegisteredModel& model, OpenOptions options = {});
    Result<Sequence> attach(SequenceId sequence);  // a handle to one that is open, e.g. after `release`
    Result<std::vector<SequenceId>> sequences(ModelId model = {});  // of all clients; {}: of all models
    Result<SequencePage> list_sequences(const SequencePageOptions& options = {});
    Status close(SequenceId sequence);  // anyone's; an open step of it is refused (busy)

    // Reserves pages for the new tokens on every worker, or refuses (no_room, busy) with nothing changed. All sequences
    // must be of one model, each at most once. Before no_room, here and in `open` and `rewrite_kv`, the model's kept sequences have been given up.
    Result<Step> begin(std::span<const StepPart> parts, StepKind kind = StepKind::attend);

    Result<GridOccupancy> occupancy();

    // Shares the first `bytes` of an allocation of this process's GPU memory with the lead, by the handle that cudaIpcGetMemHandle gives for it, for
    // Step::layer_on_device. It takes the place of what was shared before as the same `memory`, 0 to 15. It stays allocated until
    // `unshare_device_memory` has succeeded, with no layer_on_device under way, or all handles of this Client are gone. To be shared again when a
    // connection was lost: layer_on_device says so (wrong_state).
    //
    //   Cost    nothing is copied where all workers reach the memory; else tensors go through the host's.
    //   Errors  unsupported: the lead is on another host, or reached over TCP; is on a CPU, or a GPU that cannot reach this one.
    //           invalid_argument: the handle opens nothing, the allocation is smaller, or there is no such number.
    Status share_device_memory(std::span<const std::byte, 64> ipc_handle, std::uint64_t bytes, int memory = 0);
    Status unshare_device_memory(int memory = 0);  // nothing of that number: done as well

    // Records what all ranks do from now on; `take_trace` reads what there is so far, as often as one likes. One recording at a time: a new
    // one replaces the last.
    Status start_trace(TraceOptions options = {});
    Result<GridTrace> take_trace();

    struct Impl;

  private:
    explicit Client(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;
};

// A handle to one growing context. Its end closes the sequence in the cluster, waiting at most two seconds; a failure
// is logged. A sequence with a step open cannot be closed: end the step first.
class Sequence {
  public:
    Sequence(Sequence&&) noexcept;
    Sequence& operator=(Sequence&&) noexcept;
    ~Sequence();

    SequenceId id() const;
    ModelId model() const;
    const ModelSpec& spec() const;

    // A second sequence with the same tokens; pages are shared until one of the two writes to them.
    Result<Sequence> fork();
    Status truncate(std::int64_t length);
    // The tokens that `open` found kept, and that need not be computed; 0 for all that was not opened with a prefix.
    std::int64_t prefix_length() const;
    // Keeps a fork of the first prefix.size() pages for those, of all processes, that open a sequence of this model and tenant with the same names. Whoever
    // keeps says that the KV is what anybody would compute for what is named. It is kept until others need its pages or its place.
    //
    //   Errors  busy: a step is open. invalid_argument: the sequence has fewer tokens, or there are no names, or more than kPrefixPagesMax. wrong_state:
    //           some of them have left a window, or the sequence has one of its own.
    //   Cost    one round trip. Nothing is copied; the pages stay in use when this sequence is closed.
    Status keep(std::span<const PrefixHash> prefix);
    Status set_window(std::int64_t window, std::int64_t sinks);  // from now on; pages that leave it are given back
    Result<SequenceInfo> inspect() const;
    Result<KvRows> read_kv(int layer, std::int64_t first_token, std::int64_t token_count) const;  // `layer` owns its KV
    // Puts other k and v [token_count, kv_heads, head_dim] in the place of committed tokens of a layer that owns its KV, in this sequence alone: pages that
    // forks share are copied first.
    //
    //   Errors  busy: a step is open on the sequence. no_room: for the copies. wrong_state: tokens have left the window. unsupported: the KV is fp8.
    //           invalid_argument: no such tokens or layer, sizes, or a NaN or infinity (unless ModelSpec::allows_non_finite). Nothing has
    //           changed then.
    //   Cost    one round trip, and k and v to every worker.
    Status rewrite_kv(int layer, std::int64_t first_token, std::int64_t token_count, std::span<const std::byte> k,
                      std::span<const std::byte> v);
    Status close();
    SequenceId release();  // the handle's end leaves the sequence open from now on

    struct Impl;

  private:
    friend class Client;
    explicit Sequence(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// One transaction that adds tokens to some sequences. Destroyed before commit, it is aborted, waiting at most half a
// second: nothing has happened then. After a commit that got no answer (unavailable, deadline_exceeded,
// stale_generation) look at the sequences' lengths: all have grown or none has.
class Step {
  public:
    Step(Step&&) noexcept;
    Step& operator=(Step&&) noexcept;
    ~Step();

    StepId id() const;
    const ModelSpec& spec() const;
    StepKind kind() const;
    int token_count() const;                        // of all parts
    std::span<const std::int64_t> lengths() const;  // committed length of each part's sequence before this step

    // Appends k and v, attends, joins. Returns o [tokens, query_heads, head_dim] in the model's dtype (empty without
    // q). `invalid_argument`, before anything is sent, names a tensor whose size is not the model's or a layer that
    // may not be called; from the lead, a NaN or infinity in k or v (unless ModelSpec::allows_non_finite), after which
    // the same layer can be called again. A NaN in q spoils its own rows of o. The input is copied before the call
    // returns, also by layer_async, whose requests go out in the order of the calls. On the lead's host tensors pass through
    // memory that both share: the first call of a connection asks the lead for that and waits for the answer, also layer_async.
    Result<std::vector<std::byte>> layer(int layer, const LayerInput& input);
    std::future<Result<std::vector<std::byte>>> layer_async(int layer, const LayerInput& input);
    // The same with o where the caller wants it, one copy from where the lead wrote it; after an error `o` is as it was. `invalid_argument`
    // also where its size is not that of o (nothing without q).
    Status layer_into(int layer, const LayerInput& input, std::span<std::byte> o);

    // The same with the tensors in GPU memory that the Client has shared, where they are read and o is written; nothing is copied. The program's
    // streams have finished writing q, k and v when it calls; o is complete when the call returns. Values are not checked: a NaN or infinity in
    // k or v is appended, whatever the model allows. After deadline_exceeded the memory may still be read and written, until it is let go.
    //
    //   Errors  as layer; wrong_state: no memory of that number is shared on this connection. invalid_argument: a tensor is not within the memory, does not begin at
    //           a multiple of 16, or would be overwritten by o. Whatever is refused has changed nothing.
    Status layer_on_device(int layer, const DeviceTensors& tensors);

    Status commit();  // the new lengths become visible in all layers and shards at once; refused, the step stays open
    Status abort();

    struct Impl;

  private:
    friend class Client;
    explicit Step(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvgrid
