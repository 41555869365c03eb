#include "client/client_impl.h"

#include <fmt/core.h>

#include <algorithm>

#include "client/from_wire.h"

namespace kvgrid {

using comm::MessageType;
using namespace std::chrono_literals;

namespace {

constexpr auto kGiveUpWait = 1'000ms;  // of a refused step for a coordinator that may be away

}  // namespace

Deadline Client::Impl::deadline_within(std::chrono::milliseconds limit) const {
    return deadline_in(std::min(limit, options.timeout));
}

std::shared_ptr<const ModelSpec> Client::Impl::keep(ModelId model, const ModelSpec& spec) {
    std::lock_guard lock(mutex_);
    auto& kept = specs_[model];
    if (!kept || *kept != spec) kept = std::make_shared<const ModelSpec>(spec);
    return kept;
}

Result<std::shared_ptr<const ModelSpec>> Client::Impl::spec_of(ModelId model, Deadline until) {
    {
        std::lock_guard lock(mutex_);
        if (auto found = specs_.find(model); found != specs_.end()) return found->second;
    }
    auto models = list_models(until);
    if (!models) return models.error();
    auto found = std::ranges::find(*models, model, &RegisteredModel::id);
    if (found == models->end()) return {Errc::not_found, fmt::format("no model {} is registered", model.value)};
    return keep(model, found->spec);
}

Result<std::vector<RegisteredModel>> Client::Impl::list_models(Deadline until) {
    auto reply = unpacked<wire::ListModelsReply>(link.call_coordinator({.type = MessageType::list_models,
                                                                        .reply = MessageType::list_models_reply,
                                                                        .message = comm::pack(wire::Empty()),
                                                                        .repeat = Repeat::if_lost},
                                                                       until));
    if (!reply) return reply.error();
    std::vector<RegisteredModel> models;
    for (const auto& each : reply->models()) {
        auto model = from_wire(each);
        if (!model) return model.error();
        models.push_back(std::move(*model));
    }
    return models;
}

bool Client::Impl::give_up_prefix(ModelId model, Deadline until) {
    wire::GiveUpPrefixRequest request;
    request.set_model(model.value);
    return link
        .call_coordinator(
            {.type = MessageType::give_up_prefix, .reply = MessageType::empty, .message = comm::pack(request)},
            std::min(until, deadline_in(kGiveUpWait)))
        .ok();
}

Result<SequencePage> Client::Impl::list_sequences(const SequencePageOptions& page, Deadline until) {
    wire::ListSequencesRequest request;
    request.set_model(page.model.value);
    request.set_after(page.after.value);
    request.set_limit(static_cast<std::uint32_t>(page.limit));
    auto reply = unpacked<wire::ListSequencesReply>(link.call_coordinator({.type = MessageType::list_sequences,
                                                                           .reply = MessageType::list_sequences_reply,
                                                                           .message = comm::pack(request),
                                                                           .repeat = Repeat::if_lost},
                                                                          until));
    if (!reply) return reply.error();
    return from_wire(*reply);
}

}  // namespace kvgrid
