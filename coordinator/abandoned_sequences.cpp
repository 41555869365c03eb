#include "coordinator/abandoned_sequences.h"

#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "core/log.h"

namespace kvgrid::coordinator {

Status AbandonedSequences::has_room() const {
    if (count() < kCountMax) return {};
    return {Errc::unavailable,
            fmt::format("the grid has yet to close {} sequences whose opening it did not answer: retry", count())};
}

void AbandonedSequences::add(SequenceId id) {
    waiting_.insert(id);
}

void AbandonedSequences::advance() {
    while (!waiting_.empty() && under_way_.size() < kUnderWayMax && clock_.now() >= retry_at_) {
        const SequenceId id = waiting_.extract(waiting_.begin()).value();
        under_way_.insert(id);
        wire::GridClose message;
        message.set_sequence(id.value);
        message.set_term(lead_.term());
        lead_.call(comm::MessageType::grid_close, comm::pack(message), deadline_in(kTimeout),
                   [this, id](Result<comm::Frame> answer) { answered(id, answer); });
    }
}

void AbandonedSequences::answered(SequenceId id, const Result<comm::Frame>& answer) {
    under_way_.erase(id);
    Status closed;
    if (!answer && !(answer.error() == Errc::not_found)) closed = answer.error();
    if (closed) closed = catalogue_.erase_sequence(id);
    if (closed) return;

    log_warn(fmt::format("sequence {}, which nobody has, could not be closed, trying again: {}", id.value,
                         closed.error().to_string()));
    waiting_.insert(id);
    retry_at_ = clock_.now() + kRetry;
}

}  // namespace kvgrid::coordinator
