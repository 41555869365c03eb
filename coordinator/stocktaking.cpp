#include "coordinator/stocktaking.h"

#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "core/log.h"

namespace kvgrid::coordinator {

namespace {

Result<Held> read_held(const comm::Frame& frame) {
    const auto message = comm::unpack<wire::GridInventoryReply>(frame);
    if (!message) return message.error();
    Held held;
    for (const wire::GridAddModel& model : message->models()) {
        auto spec = parse_model_spec(model.spec_json());
        if (!spec) return spec.error();
        held.models.push_back({.id = ModelId{model.model()},
                               .spec = *std::move(spec),
                               .grid = {model.head_parts(), model.sequence_parts()},
                               .pool_bytes_per_worker = model.pool_bytes_per_worker(),
                               .confirmed = true});
    }
    for (const wire::HeldSequence& sequence : message->sequences()) {
        held.sequences.push_back({SequenceId{sequence.sequence()}, ModelId{sequence.model()}, sequence.length()});
    }
    return held;
}

}  // namespace

void Stocktaking::begin(bool new_generation) {
    state_ = State::due;
    new_generation_ = new_generation;
    retry_at_ = {};
    problem_.clear();
    advance();
}

void Stocktaking::advance() {
    if (state_ != State::due || clock_.now() < retry_at_) return;
    state_ = State::under_way;
    wire::GridInventoryRequest request;
    request.set_term(lead_.term());
    lead_.call(comm::MessageType::grid_inventory, comm::pack(request), deadline_in(kTimeout),
               [this, generation = lead_.generation()](Result<comm::Frame> answer) { answered(generation, answer); });
}

std::optional<std::string> Stocktaking::obstacle() const {
    if (state_ == State::done) return std::nullopt;
    if (problem_.empty()) return "the lead is being asked what the grid holds";
    return problem_;
}

void Stocktaking::answered(Generation generation, const Result<comm::Frame>& answer) {
    if (generation != lead_.generation()) return;  // another `begin` has come, or will
    if (!answer) return put_off("the lead does not say what the grid holds: " + answer.error().to_string());
    const auto held = read_held(*answer);
    if (!held) return put_off("what the lead says that the grid holds makes no sense: " + held.error().to_string());
    if (Status settled = settle(*held); !settled) return put_off(settled.error().message);
    state_ = State::done;
    problem_.clear();
    models_.advance();
    abandoned_.advance();
}

Status Stocktaking::settle(const Held& held) {
    auto models = catalogue_.models();
    if (!models) return models.error();
    auto sequences = catalogue_.sequences();
    if (!sequences) return sequences.error();
    const Settlement settlement = reconcile({*std::move(models), *std::move(sequences), new_generation_}, held);
    if (!settlement.conflict.empty()) return {Errc::corrupt, settlement.conflict};
    if (Status mended = mend_catalogue(settlement); !mended) {
        return {mended.error().code,
                "the catalogue could not be brought to agree with the grid: " + mended.error().to_string()};
    }
    for (const SequenceId id : settlement.close) abandoned_.add(id);
    models_.begin(settlement.add);

    ++counts_.runs;
    for (const Difference& difference : settlement.differences) {
        log_warn(fmt::format("reconciled ({}): {}", name_of(difference.kind), difference.text));
        ++counts_.differences[static_cast<std::size_t>(difference.kind)];
    }
    log_info(fmt::format("generation {} holds {} models and {} sequences; {} differences to the catalogue",
                         lead_.generation().value, held.models.size(), held.sequences.size(),
                         settlement.differences.size()));
    return {};
}

Status Stocktaking::mend_catalogue(const Settlement& settlement) {
    for (const ModelRecord& model : settlement.confirm) {
        if (auto done = catalogue_.confirm_model(model.id, model.pool_bytes_per_worker); !done) return done;
    }
    for (const ModelRecord& model : settlement.adopt) {
        if (auto done = catalogue_.adopt_model(model); !done) return done;
    }
    for (const ModelId id : settlement.erase_models) {
        if (auto done = catalogue_.erase_model(id); !done) return done;
    }
    if (settlement.erase_sequences.empty()) return {};
    return catalogue_.erase_sequences(settlement.erase_sequences);
}

void Stocktaking::put_off(std::string problem) {
    if (problem != problem_) log_warn(problem);
    problem_ = std::move(problem);
    state_ = State::due;
    retry_at_ = clock_.now() + kRetry;
}

}  // namespace kvgrid::coordinator
