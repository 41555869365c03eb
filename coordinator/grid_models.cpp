#include "coordinator/grid_models.h"

#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "core/log.h"

namespace kvgrid::coordinator {

namespace {

std::string add_message(const ModelRecord& record, std::uint64_t term) {
    wire::GridAddModel message;
    message.set_model(record.id.value);
    message.set_spec_json(to_json(record.spec));
    message.set_head_parts(record.grid.head_parts);
    message.set_sequence_parts(record.grid.sequence_parts);
    message.set_pool_bytes_per_worker(record.pool_bytes_per_worker);
    message.set_term(term);
    return comm::pack(message);
}

void tell(std::vector<GridModels::Done> waiting, const Result<ModelRecord>& outcome) {
    for (const auto& done : waiting) done(outcome);
}

}  // namespace

void GridModels::begin(std::vector<ModelRecord> catalogued) {
    std::map<ModelId, Addition> ended = std::exchange(additions_, {});
    for (ModelRecord& record : catalogued) {
        const ModelId id = record.id;
        additions_[id].record = std::move(record);
    }
    for (auto& [id, addition] : ended) {
        tell(std::move(addition.waiting), Error{Errc::unavailable, "the grid was formed anew meanwhile: retry"});
    }
}

void GridModels::add(const ModelRecord& reserved, Deadline deadline, Done done) {
    Addition& addition = additions_[reserved.id];
    addition.record = reserved;
    addition.waiting.push_back(std::move(done));
    send(addition, deadline);
}

bool GridModels::join(ModelId id, Deadline deadline, Done done) {
    const auto found = additions_.find(id);
    if (found == additions_.end()) return false;
    found->second.waiting.push_back(std::move(done));
    if (!found->second.under_way) send(found->second, deadline);
    return true;
}

void GridModels::advance() {
    std::vector<ModelId> due;
    for (const auto& [id, addition] : additions_) {
        if (!addition.under_way && addition.retry_at <= clock_.now()) due.push_back(id);
    }
    for (const ModelId id : due) {
        const auto found = additions_.find(id);
        if (found != additions_.end()) send(found->second, deadline_in(options_.lead_timeout));
    }
}

std::optional<std::string> GridModels::obstacle() const {
    for (const auto& [id, addition] : additions_) {
        if (!addition.record.confirmed) continue;
        if (addition.problem.empty()) {
            return fmt::format("model {} is being added to generation {}", addition.record.spec.name,
                               lead_.generation().value);
        }
        return fmt::format("model {} could not be added to generation {} (trying again): {}", addition.record.spec.name,
                           lead_.generation().value, addition.problem);
    }
    return std::nullopt;
}

void GridModels::send(Addition& addition, Deadline deadline) {
    addition.under_way = true;
    lead_.call(comm::MessageType::grid_add_model, add_message(addition.record, lead_.term()), deadline,
               [this, id = addition.record.id, generation = lead_.generation()](Result<comm::Frame> answer) {
                   answered(id, generation, answer);
               });
}

void GridModels::answered(ModelId id, Generation generation, const Result<comm::Frame>& answer) {
    const auto found = additions_.find(id);
    if (generation != lead_.generation() || found == additions_.end()) return;  // `begin` has told those who waited
    Addition& addition = found->second;
    addition.under_way = false;

    if (answer.ok() || answer.error() == Errc::already_exists) {
        auto confirmed = confirm(addition.record, answer);
        return confirmed ? end(id, std::move(confirmed)) : put_off(addition, confirmed.error());
    }
    if (addition.record.confirmed || !surely_refused(answer.error())) return put_off(addition, answer.error());
    if (auto erased = catalogue_.erase_model(id); !erased) return put_off(addition, erased.error());
    end(id, answer.error());
}

Result<ModelRecord> GridModels::confirm(ModelRecord record, const Result<comm::Frame>& answer) {
    if (answer.ok()) {
        auto reply = comm::unpack<wire::GridAddModelReply>(*answer);
        if (!reply) return reply.error();
        if (reply->pool_bytes_per_worker() != 0) record.pool_bytes_per_worker = reply->pool_bytes_per_worker();
    }
    if (auto confirmed = catalogue_.confirm_model(record.id, record.pool_bytes_per_worker); !confirmed) {
        return confirmed.error();
    }
    record.confirmed = true;
    return record;
}

void GridModels::end(ModelId id, Result<ModelRecord> outcome) {
    std::vector<Done> waiting = std::move(additions_.at(id).waiting);
    additions_.erase(id);
    if (outcome)
        log_info(
            fmt::format("model {} ({}) is in generation {}", id.value, outcome->spec.name, lead_.generation().value));
    tell(std::move(waiting), outcome);
}

void GridModels::put_off(Addition& addition, const Error& error) {
    addition.retry_at = clock_.now() + options_.retry;
    if (addition.problem != error.to_string()) {
        log_warn(fmt::format("model {} ({}) could not be added to generation {}, trying again: {}",
                             addition.record.id.value, addition.record.spec.name, lead_.generation().value,
                             error.to_string()));
    }
    addition.problem = error.to_string();
    tell(std::move(addition.waiting), error);
}

}  // namespace kvgrid::coordinator
