#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "coordinator/grid.h"
#include "coordinator/sqlite.h"
#include "core/ids.h"
#include "core/model_spec.h"
#include "core/prefix_hash.h"
#include "core/result.h"
#include "core/sharding.h"

namespace kvgrid::coordinator {

struct ModelRecord {
    ModelId id;
    ModelSpec spec;
    GridShape grid;
    std::uint64_t pool_bytes_per_worker = 0;
    bool confirmed = false;
};

struct SequenceRecord {
    SequenceId id;
    ModelId model;
    std::string tenant;
    SequenceId parent;  // that it was forked from
    bool confirmed = false;
    std::vector<PrefixHash> prefix = {};  // names of its pages, if it is kept for them and nobody was given it
};

// What the cluster must know after the coordinator has died: the grid, its models and its sequences.
//
//   Two phases  a record is reserved before the grid is asked (its id is durable then) and confirmed when the grid has
//               done it. What is found unconfirmed after a restart may or may not be in the grid: it is settled there.
//   Ids         grow by one and are never given twice, whatever is erased and whenever the process dies.
//   Durability  each call that changes something is one transaction, on the disk when the call returns; a refused one
//               changed nothing.
//   Errors      those of Database; `not_found` where there is no record of that id; `corrupt` where one makes no sense.
//   Cost        a change waits for the disk once (milliseconds). One thread.
class Catalogue {
  public:
    // In `state_dir`, which is made if it is not there. `unsupported`: written with another schema version.
    static Result<Catalogue> open(const std::filesystem::path& state_dir);

    // Told after each change how long the disk took.
    void on_write(std::function<void(std::chrono::nanoseconds)> told) { database_.on_commit(std::move(told)); }

    Result<WorkerId> take_worker_id();
    Result<std::uint64_t> take_term();  // one for each start of a coordinator

    Result<Grid> grid();
    // The next generation. Sequences live in the memory of a grid: those of the last generation end here and are `lost`.
    struct Formed {
        Grid grid;
        std::vector<SequenceRecord> lost;
    };
    Result<Formed> form_grid(std::vector<Member> members);

    Result<std::vector<ModelRecord>> models();  // by id, also unconfirmed ones
    Result<std::optional<ModelRecord>> find_model(std::string_view name);
    Result<ModelRecord> model(ModelId id);
    Result<ModelRecord> reserve_model(ModelRecord record);  // gives the id; `already_exists`: the name is taken
    Status confirm_model(ModelId id, std::uint64_t pool_bytes_per_worker);
    Status erase_model(ModelId id);
    Status adopt_model(const ModelRecord& record);  // a confirmed one that the grid holds under this id

    Result<std::vector<SequenceRecord>> sequences(ModelId model = {});  // as `models`; {}: of all models
    // At most `limit` confirmed ones with ids above `after`, by id.
    Result<std::vector<SequenceRecord>> open_sequences(ModelId model, SequenceId after, int limit);
    Result<std::int64_t> sequence_count();  // unconfirmed ones too. Reads the index: a millisecond for some 100,000
    Result<SequenceRecord> sequence(SequenceId id);
    // Of a model's kept ones those that share no page with another, as far as the catalogue knows: what they were forked from is not open, nor is
    // what was forked from them.
    Result<std::set<SequenceId>> unshared_kept(ModelId model);
    Result<SequenceRecord> reserve_sequence(SequenceRecord record);  // gives the id
    Status confirm_sequence(SequenceId id);
    Status erase_sequence(SequenceId id);  // also one that is not there
    Status erase_sequences(std::span<const SequenceId> ids);

  private:
    explicit Catalogue(Database database) : database_(std::move(database)) {}

    Status prepare_schema(const std::string& path);
    Result<std::uint64_t> next(std::string_view counter);

    Database database_;
};

}  // namespace kvgrid::coordinator
