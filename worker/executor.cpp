#include "worker/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "core/log.h"
#include "worker/finite_check.h"
#include "worker/token_runs.h"

namespace kvgrid::worker {

namespace {

// Bounds what one read makes the ranks exchange.
constexpr std::uint64_t kReadBytesMax = std::uint64_t{256} << 20;

}  // namespace

Executor::Executor(Shard& shard, comm::Collective& collective, std::chrono::milliseconds operation_timeout,
                   Observer* observer)
    : shard_(shard),
      collective_(collective),
      operation_timeout_(operation_timeout),
      observer_(observer ? *observer : nobody_) {}

OperationResult Executor::apply(const Operation& operation) {
    if (broken_) {
        return only({Errc::peer_lost,
                     fmt::format("generation {} lost a worker: wait for a new generation, then open sequences again",
                                 collective_.generation().value)});
    }
    current_ = &operation;
    observer_.operation_applied();
    const ScopedSpan span(&observer_.spans, SpanKind::operation, operation.number);
    return std::visit([this](const auto& body) { return run(body); }, operation.body);
}

DeviceStatus Executor::device_status() const {
    DeviceStatus status = shard_.device().status();
    if (join_) status.join = join_->way();
    if (join_ && join_->goes(JoinWay::nccl)) status.nccl_generation = collective_.generation().value;
    return status;
}

OperationResult Executor::only(Status status) {
    OperationResult result;
    result.status = std::move(status);
    return result;
}

OperationResult Executor::broken(const Error& cause) {
    broken_ = true;
    log_error(fmt::format("operation {} failed between the ranks, generation {} is given up: {}", current_->number,
                          collective_.generation().value, cause.to_string()));
    return only({Errc::peer_lost, fmt::format("the workers did not finish operation {} together: {}", current_->number,
                                              cause.to_string())});
}

OperationResult Executor::run(const AddModel& add) {
    if (!join_) {
        auto made = shard_.device().make_join({collective_, kLeadRank, &observer_.spans, deadline()});
        if (!made) return broken(made.error());
        join_ = *std::move(made);
    }
    const auto added = shard_.add_model(add.model, add.spec, add.grid, add.pool_bytes);
    // All ranks get pools of the smallest size that any of them could give, so that capacity is one number.
    std::int64_t bytes[] = {added ? static_cast<std::int64_t>(*added) : -1};
    if (Status agreed = collective_.all_reduce(bytes, comm::ReduceOp::min, deadline()); !agreed)
        return broken(agreed.error());
    if (bytes[0] < 0 || !added) {
        if (added) shard_.remove_model(add.model);
        return only(added ? Status(Errc::no_room, "another worker of the grid has no room for the model's pool")
                          : added.error());
    }
    OperationResult result;
    result.pool_bytes = static_cast<std::uint64_t>(bytes[0]);
    if (result.pool_bytes != *added) {
        shard_.remove_model(add.model);
        result.status = [&]() -> Status {
            const auto again = shard_.add_model(add.model, add.spec, add.grid, result.pool_bytes);
            return again ? Status() : again.error();
        }();
    }
    return result;
}

OperationResult Executor::run(const OpenSequence& open) {
    return only(shard_.open(open.sequence, open.model, open.window));
}

OperationResult Executor::run(const ForkSequence& fork) {
    return only(shard_.fork(fork.source, fork.target, fork.tokens));
}

OperationResult Executor::run(const CloseSequence& close) {
    return only(shard_.close(close.sequence));
}

OperationResult Executor::run(const TruncateSequence& truncate) {
    return only(shard_.truncate(truncate.sequence, truncate.length));
}

OperationResult Executor::run(const SetWindow& set) {
    return only(shard_.set_window(set.sequence, set.window));
}

OperationResult Executor::run(const BeginStep& begin) {
    Status begun = shard_.begin(begin);
    if (!begun && begun.error() != Errc::no_room) return only(begun);  // every rank says the same
    std::int64_t verdict[] = {begun ? 1 : 0, begun ? std::numeric_limits<int>::max() : shard_.tokens_that_fit(begin)};
    if (Status agreed = collective_.all_reduce(verdict, comm::ReduceOp::min, deadline()); !agreed)
        return broken(agreed.error());
    if (verdict[0] == 0) {
        if (begun) shard_.abort(begin.step).value();
        return only({Errc::no_room,
                     fmt::format("{}; at most {} new tokens per sequence would fit this step now: close or truncate "
                                 "sequences, or send fewer",
                                 begun ? "another worker is full" : begun.error().message, verdict[1])});
    }
    OperationResult result;
    for (const auto& part : begin.parts) result.lengths.push_back(shard_.length_of(part.sequence));
    return result;
}

OperationResult Executor::run(const CommitStep& commit) {
    const int tokens = shard_.size_of_step(commit.step).tokens;
    Status committed = shard_.commit(commit.step);
    if (committed) observer_.tokens_committed(tokens);
    if (committed) observer_.spans.step_ended();
    return only(std::move(committed));
}

OperationResult Executor::run(const AbortStep& abort) {
    Status aborted = shard_.abort(abort.step);
    if (aborted) observer_.spans.step_ended();
    return only(std::move(aborted));
}

OperationResult Executor::run(const ReadKv& read) {
    if (Status readable = shard_.check_readable(read.sequence, read.layer, read.first_token, read.token_count);
        !readable) {
        return only(readable);
    }
    const ShardModel& model = *shard_.find_model(shard_.model_of(read.sequence));
    const ModelSpec& spec = model.spec;
    const std::size_t row = spec.row_bytes();
    if (read.token_count * 2 * spec.kv_heads * row > kReadBytesMax) {
        return only({Errc::invalid_argument, fmt::format("{} tokens are too many for one read: at most {}",
                                                         read.token_count, kReadBytesMax / (2 * spec.kv_heads * row))});
    }
    const int spread = shard_.find_sequence(read.sequence)->spread;
    const auto rows_of = [&](int rank) {
        return tokens_of_part(read.first_token, read.token_count, spread, model.grid, model.grid.sequence_part(rank));
    };
    std::int64_t rows_max = 0;
    for (int part = 0; part < model.grid.sequence_parts; ++part) rows_max = std::max(rows_max, rows_of(part));
    const std::size_t block = 2 * rows_max * kv_heads_per_part_max(spec, model.grid) * row;
    std::vector<std::byte> mine(block);
    shard_.read_kv(read.sequence, read.layer, read.first_token, read.token_count, mine);
    std::vector<std::byte> all(is_lead() ? block * collective_.size() : 0);
    if (Status done = collective_.gather(mine, all, kLeadRank, deadline()); !done) return broken(done.error());
    OperationResult result;
    if (!is_lead()) return result;

    std::vector<std::byte> whole(2 * read.token_count * spec.kv_heads * row);
    for (int rank = 0; rank < collective_.size(); ++rank) {
        const HeadRange heads = kv_heads_of_part(spec, model.grid, model.grid.head_part(rank));
        for (int which = 0; which < 2; ++which) {  // k, then v
            const std::byte* from = all.data() + rank * block + which * rows_of(rank) * heads.count * row;
            std::byte* to = whole.data() + which * read.token_count * spec.kv_heads * row;
            for (const TokenRun& run : token_runs_of_part(read.first_token, read.token_count, spread, model.grid,
                                                          model.grid.sequence_part(rank))) {
                for (int i = 0; i < run.token_count; ++i, from += heads.count * row) {
                    const std::int64_t token = run.first_token - read.first_token + i;
                    std::memcpy(to + (token * spec.kv_heads + heads.first) * row, from, heads.count * row);
                }
            }
        }
    }
    result.tensors = comm::Payload::own(std::move(whole));
    return result;
}

OperationResult Executor::run(const RewriteKv& rewrite) {
    const auto& [sequence, layer, first_token, token_count] = rewrite;
    if (Status writable = shard_.check_writable(sequence, layer, first_token, token_count); !writable)
        return only(writable);
    const ModelSpec& spec = shard_.find_model(shard_.model_of(sequence))->spec;
    const std::span<const std::byte> rows = current_->tensors.bytes();
    const std::uint64_t expected = 2 * spec.kv_heads * spec.row_bytes() * token_count;
    if (rows.size() != expected) {
        return only({Errc::invalid_argument, fmt::format("k and v of {} tokens have {} bytes, must have {}",
                                                         token_count, rows.size(), expected)});
    }
    if (!spec.allows_non_finite) {
        const Status finite = check_finite({spec, layer, static_cast<int>(token_count), rows});
        if (!finite) return only(finite);
    }
    Status own = shard_.unshare(sequence, layer, first_token, token_count);
    if (!own && own.error() != Errc::no_room) return only(own);  // every rank says the same
    std::int64_t verdict[] = {own ? 1 : 0};
    if (Status agreed = collective_.all_reduce(verdict, comm::ReduceOp::min, deadline()); !agreed)
        return broken(agreed.error());
    if (verdict[0] == 0)
        return only(own ? Status(Errc::no_room, "another worker is full: pages that forks share have to be copied")
                        : own);
    shard_.rewrite_kv(sequence, layer, first_token, token_count, rows);
    return {};
}

OperationResult Executor::run(const InspectSequence& inspect) {
    const SequenceState* sequence = shard_.find_sequence(inspect.sequence);
    if (!sequence) return only({Errc::not_found, fmt::format("sequence {} is not open", inspect.sequence.value)});
    const std::uint64_t pages = sequence->page_count();
    OperationResult result;
    result.sequence = {shard_.model_of(inspect.sequence), sequence->length, sequence->window,
                       static_cast<bool>(sequence->growth.step),
                       std::vector<std::uint64_t>(is_lead() ? collective_.size() : 0)};
    const Status done =
        collective_.gather(std::as_bytes(std::span(&pages, 1)),
                           std::as_writable_bytes(std::span(result.sequence.pages_by_rank)), kLeadRank, deadline());
    return done ? result : broken(done.error());
}

OperationResult Executor::run(const ReportOccupancy&) {
    const std::vector<ModelReport> mine = shard_.report();  // the same models on every rank
    std::vector<ModelReport> all(is_lead() ? mine.size() * collective_.size() : 0);
    if (Status done = collective_.gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)),
                                         kLeadRank, deadline());
        !done) {
        return broken(done.error());
    }
    OperationResult result;
    result.join_bytes = join_ ? join_->bytes_received() : 0;  // only the lead receives
    for (std::size_t first = 0; first < all.size(); first += mine.size()) {
        result.by_rank.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(first),
                                    all.begin() + static_cast<std::ptrdiff_t>(first + mine.size()));
    }
    if (is_lead() && result.by_rank.empty()) result.by_rank.resize(collective_.size());
    return result;
}

OperationResult Executor::run(const StartTrace& start) {
    observer_.spans.start({.steps = start.steps, .until = deadline_in(start.duration), .spans_max = start.spans_max});
    return {};
}

OperationResult Executor::run(const TakeTrace&) {
    auto recordings = gather_recordings(collective_, observer_.spans, kLeadRank, deadline());
    if (!recordings) return broken(recordings.error());
    OperationResult result;
    result.recordings = *std::move(recordings);
    return result;
}

OperationResult Executor::run(const TakeInventory&) {
    OperationResult result;
    result.inventory = shard_.inventory();
    const std::int64_t mine = digest(result.inventory);
    std::int64_t least[] = {mine, -mine};
    if (Status agreed = collective_.all_reduce(least, comm::ReduceOp::min, deadline()); !agreed)
        return broken(agreed.error());
    if (least[0] != -least[1]) return broken({Errc::internal, "the ranks do not hold the same sequences"});
    if (!is_lead()) result.inventory = {};
    return result;
}

}  // namespace kvgrid::worker
