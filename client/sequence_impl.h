#pragma once

#include <atomic>
#include <memory>

#include "client/client_impl.h"

namespace kvgrid {

struct Sequence::Impl {
    Impl(std::shared_ptr<Client::Impl> of, SequenceId is, ModelId from, std::shared_ptr<const ModelSpec> geometry,
         std::int64_t begins_with = 0)
        : client(std::move(of)), id(is), model(from), spec(std::move(geometry)), prefix_length(begins_with) {}
    ~Impl();  // closes, if it owns

    Status close(Deadline deadline);

    const std::shared_ptr<Client::Impl> client;
    const SequenceId id;
    const ModelId model;
    const std::shared_ptr<const ModelSpec> spec;
    const std::int64_t prefix_length;
    std::atomic<bool> owns{true};  // until close or release
};

}  // namespace kvgrid
